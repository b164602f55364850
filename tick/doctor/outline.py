"""Reading the YAML of workflows: as much of it as they use, with the line of everything.

A base installation has no YAML library, and none of them tells lines to whoever only wants the values. What is not
understood (anchors, tags, several documents) is refused, and so is never read wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_KEY = re.compile(
    r"""(?P<key>"[^"]*"|'[^']*'|[^\s#:"'\[\]{},&*!|>%@`-][^:#]*?|-[^\s:#][^:#]*?)\s*:(?:\s+(?P<rest>.*)|$)"""
)
_ITEM = re.compile(r"-(?:(?P<blank>\s+)(?P<rest>.*)|$)")
_BLOCK = re.compile(r"(?P<style>[|>])(?P<chomp>[+-]?)(?:\s+#.*)?")
_REFUSED = ("&", "*", "!", "%", "@", "`", "? ")


class Unreadable(ValueError):
    """A text that this reader does not understand."""


@dataclass(frozen=True, slots=True)
class Node:
    """A text, list or mapping, and the line on which it stands."""

    value: str | list[Node] | dict[str, Node]
    line: int

    def get(self, *path: str) -> Node | None:
        """What is at the end of a path of keys, if there is such a thing."""
        node: Node | None = self
        for key in path:
            node = node.value.get(key) if node and isinstance(node.value, dict) else None
        return node

    def text(self, *path: str) -> str:
        """The text at the end of a path; empty when there is none."""
        node = self.get(*path)
        return node.value if node and isinstance(node.value, str) else ""

    def items(self) -> list[tuple[str, Node]]:
        """The members of a mapping."""
        return list(self.value.items()) if isinstance(self.value, dict) else []

    def nodes(self) -> list[Node]:
        """The members of a list, or the one that stands instead of it."""
        return self.value if isinstance(self.value, list) else [self]

    def plain(self) -> Any:
        """The value alone."""
        if isinstance(self.value, dict):
            return {key: node.plain() for key, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value


@dataclass(slots=True)
class _Line:
    number: int
    indent: int
    text: str
    raw: str


def read(text: str) -> Node:
    """The document. Raises Unreadable, with the line, for what it does not understand."""
    reader = _Reader(text)
    node = reader.block(0) or Node("", 1)
    if reader.peek() is not None:
        raise reader.refusal()
    return node


class _Reader:
    def __init__(self, text: str) -> None:
        self.lines = [
            _Line(number, len(raw) - len(raw.lstrip(" ")), raw.strip(), raw)
            for number, raw in enumerate(text.removeprefix("\ufeff").splitlines(), 1)
        ]
        self.at = 0
        if self.peek() and self.lines[self.at].text == "---":
            self.at += 1

    def peek(self) -> _Line | None:
        """The next line that says something."""
        while self.at < len(self.lines) and (not self.lines[self.at].text or self.lines[self.at].text[0] == "#"):
            self.at += 1
        return self.lines[self.at] if self.at < len(self.lines) else None

    def refusal(self) -> Unreadable:
        line = self.lines[min(self.at, len(self.lines) - 1)]
        return Unreadable(f"line {line.number}: {line.text[:60]}")

    def block(self, least: int) -> Node | None:
        """What begins on the next line, if it is indented by so much at least."""
        line = self.peek()
        if line is None or line.indent < least:
            return None
        if _ITEM.fullmatch(line.text):
            return Node([*self._items(line.indent)], line.number)
        if _KEY.fullmatch(line.text):
            return Node(dict(self._members(line.indent)), line.number)
        self.at += 1
        return self._scalar(line.text, line.number, least)

    def _items(self, indent: int) -> Iterator[Node]:
        while (line := self.peek()) and line.indent == indent and (item := _ITEM.fullmatch(line.text)):
            if not item["rest"] or item["rest"].startswith("#"):
                self.at += 1
                yield self.block(indent + 1) or Node("", line.number)
                continue
            # The dash is blank from here on, so that what follows it is a block of its own.
            line.indent, line.text = indent + 1 + len(item["blank"]), item["rest"]
            if block := _BLOCK.fullmatch(line.text):
                self.at += 1
                yield Node(self._literal(indent, block), line.number)
            else:
                yield self.block(indent + 1) or Node("", line.number)

    def _members(self, indent: int) -> Iterator[tuple[str, Node]]:
        while (line := self.peek()) and line.indent == indent and (member := _KEY.fullmatch(line.text)):
            self.at += 1
            yield _unquoted(member["key"]), self._value(member["rest"] or "", line, indent)
        if (line := self.peek()) and line.indent > indent:
            raise self.refusal()

    def _value(self, rest: str, line: _Line, indent: int) -> Node:
        if block := _BLOCK.fullmatch(rest):
            return Node(self._literal(indent, block), line.number)
        if rest and not rest.startswith("#"):
            return self._scalar(rest, line.number, indent + 1)
        # A list may stand as far left as the key that it belongs to.
        following = self.peek()
        dashed = following is not None and following.indent == indent and _ITEM.fullmatch(following.text)
        return self.block(indent if dashed else indent + 1) or Node("", line.number)

    def _literal(self, indent: int, block: re.Match[str]) -> str:
        """The text of a block scalar: all lines that are indented by more."""
        lines = []
        while self.at < len(self.lines) and (not self.lines[self.at].text or self.lines[self.at].indent > indent):
            lines.append(self.lines[self.at])
            self.at += 1
        depth = min((line.indent for line in lines if line.text), default=0)
        texts = [line.raw[depth:].rstrip("\r") for line in lines]
        while texts and not texts[-1].strip():
            texts.pop()
        joined = "\n".join(texts) if block["style"] == "|" else _folded(texts)
        return joined + ("" if block["chomp"] == "-" or not texts else "\n")

    def _scalar(self, text: str, number: int, least: int) -> Node:
        if text.startswith(_REFUSED):
            raise Unreadable(f"line {number}: {text[:60]}")
        if text[0] not in "\"'[{":
            text = _without_comment(text)
        # What goes on, further in, on the next lines.
        while (line := self.peek()) and line.indent >= least and (text[0] not in "\"'[{" or not _is_closed(text)):
            text += " " + (_without_comment(line.text) if text[0] not in "\"'" else line.text)
            self.at += 1
        return _flow(text, number)


def _folded(texts: list[str]) -> str:
    folded = ""
    for place, text in enumerate(texts):
        blank_before = place > 0 and not texts[place - 1].strip()
        joint = "" if place == 0 or blank_before or not text.strip() else " "
        folded += joint + text if text.strip() else "\n"
    return folded


def _without_comment(text: str) -> str:
    return re.sub(r"(?:^|\s+)#.*", "", text).strip()


def _is_closed(text: str) -> bool:
    opened = re.sub(r'"(?:[^"\\]|\\.)*"|\'(?:[^\']|\'\')*\'', "", text)
    return not set(opened) & {'"', "'"} and all(opened.count(a) == opened.count(b) for a, b in ("[]", "{}"))


def _flow(text: str, number: int) -> Node:
    """A value on one line: quoted, plain, [a, b] or {a: b}."""
    text = re.sub(r"""^("(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[\[{].*[\]}])\s+#.*$""", r"\1", text).strip()
    if text[:1] == "[" and text.endswith("]"):
        return Node([_flow(part, number) for part in _split(text[1:-1])], number)
    if text[:1] == "{" and text.endswith("}"):
        pairs = (_KEY.fullmatch(part) or _unreadable(part, number) for part in _split(text[1:-1]))
        return Node({_unquoted(pair["key"]): _flow(pair["rest"] or "", number) for pair in pairs}, number)
    return Node(_unquoted(text), number)


def _unreadable(text: str, number: int) -> re.Match[str]:
    raise Unreadable(f"line {number}: {text[:60]}")


def _split(text: str) -> list[str]:
    """At the commas that stand in no quotes and no brackets."""
    parts = re.findall(r"""((?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|\[[^\]]*\]|\{[^}]*\}|\$\{\{.*?\}\}|[^,])+)""", text)
    return [part.strip() for part in parts if part.strip()]


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r'\\(["\\/])', r"\1", text[1:-1]).replace("\\n", "\n").replace("\\t", "\t")
    return text
