"""Reading the YAML of workflows: as much of it as they use, with the line of everything.

A base installation has no YAML library, and none of them tells lines to whoever only wants the values. What is not
understood (anchors, tags, several documents) is refused, and so is never read wrongly.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

_QUOTED = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*')"""
_PLAIN = r"(?:[^:#]|(?<!\s)#|:(?=\S))*?"
_KEY = re.compile(
    rf"""(?P<key>{_QUOTED}|[^\s#:"'\[\]{{}},&*!|>%@`?-]{_PLAIN}|[?:-](?=[^\s:#]){_PLAIN})\s*:(?:\s+(?P<rest>.*)|$)"""
)
_QUOTED_TEXT = re.compile(_QUOTED, re.DOTALL)
_FLOW_TEXT = re.compile(r"(?:[^,\[\]{}:#]|:(?![\s,\[\]{}]|$)|(?<!\s)#)+")
_ITEM = re.compile(r"-(?:(?P<blank>\s+)(?P<rest>.*)|$)")
_BLOCK = re.compile(r"(?P<style>[|>])(?P<chomp>[+-]?)(?:\s+#.*)?")
_REFUSED = ("&", "*", "!", "%", "@", "`", "? ")
MOST_LINES = 500
"""Lines over which a list or a mapping in brackets may go."""

T = TypeVar("T")


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
        return self._flow(text, number, least) if text[0] in "\"'[{" else self._plain(text, number, least)

    def _plain(self, text: str, number: int, least: int) -> Node:
        """A text without quotes, and the lines further in on which it goes on."""
        parts = [_without_comment(text)]
        while parts[-1] and (line := self.peek()) and line.indent >= least:
            if _KEY.fullmatch(line.text):
                raise self.refusal()
            parts.append(_without_comment(line.text))
            self.at += 1
        return Node(" ".join(parts).strip(), number)

    def _flow(self, text: str, number: int, least: int) -> Node:
        """A text in quotes, a [list] or a {mapping}, which may go on on the next lines."""
        for _ in range(MOST_LINES):
            try:
                return _Flow(text, number).only()
            except _Unfinished:
                line = self.peek()
                if line is None or line.indent < least:
                    break
                text += " " + line.text
                self.at += 1
        raise Unreadable(f"line {number}: {text[:60]}")


class _Unfinished(Exception):
    """The text ends within quotes or brackets."""


class _Flow:
    """A value that is written as JSON is, or nearly: [a, 'b'], {a: b}."""

    def __init__(self, text: str, number: int) -> None:
        self.text, self.number, self.at = text, number, 0

    def only(self) -> Node:
        """The value, and nothing after it but a comment."""
        node = self._value()
        if not re.fullmatch(r"\s*|\s+#.*", self.text[self.at :]):
            raise self._refusal()
        return node

    def _refusal(self) -> Unreadable:
        return Unreadable(f"line {self.number}: {self.text[self.at :][:60]}")

    def _peek(self) -> str:
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        if self.at == len(self.text):
            raise _Unfinished
        return self.text[self.at]

    def _value(self) -> Node:
        match self._peek():
            case "[":
                return Node([*self._members("]", self._value)], self.number)
            case "{":
                return Node(dict(self._members("}", self._pair)), self.number)
            case _:
                return Node(self._text(), self.number)

    def _members(self, end: str, read: Callable[[], T]) -> Iterator[T]:
        self.at += 1
        while self._peek() != end:
            yield read()
            if self._peek() == ",":
                self.at += 1
            elif self._peek() != end:
                raise self._refusal()
        self.at += 1

    def _pair(self) -> tuple[str, Node]:
        key = self._text()
        if self._peek() != ":":
            return key, Node("", self.number)
        self.at += 1
        return key, Node("", self.number) if self._peek() in ",}" else self._value()

    def _text(self) -> str:
        quoted = self._peek() in "\"'"
        match = (_QUOTED_TEXT if quoted else _FLOW_TEXT).match(self.text, self.at)
        if match is None and quoted:
            raise _Unfinished
        if match is None or (not quoted and match[0].startswith(_REFUSED)):
            raise self._refusal()
        self.at = match.end()
        return _unquoted(match[0].strip())


def _folded(texts: list[str]) -> str:
    folded = ""
    for place, text in enumerate(texts):
        blank_before = place > 0 and not texts[place - 1].strip()
        joint = "" if place == 0 or blank_before or not text.strip() else " "
        folded += joint + text if text.strip() else "\n"
    return folded


def _without_comment(text: str) -> str:
    return re.sub(r"(?:^|\s+)#.*", "", text).strip()


def _unquoted(text: str) -> str:
    if len(text) > 1 and text[0] == text[-1] == "'":
        return text[1:-1].replace("''", "'")
    if len(text) > 1 and text[0] == text[-1] == '"':
        return re.sub(r'\\(["\\/])', r"\1", text[1:-1]).replace("\\n", "\n").replace("\\t", "\t")
    return text
