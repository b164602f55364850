"""Somebody at the dashboard: logs in over real HTTP, reads pages as a parser of HTML does, and sends the forms on them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx
import uvicorn

from tests.factories import wait_until
from tick import web
from tick.config import Settings
from tick.handlers import registry

PASSWORD = "correct-horse-battery-staple"
INLINE = {"a", "b", "button", "code", "em", "pre", "span", "strong", "textarea", "time"}
VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}


class Element:
    """An element of a page: its tag, attributes, what is in it, and its text without the markup."""

    def __init__(self, tag: str, attributes: dict[str, str | None], parent: Element | None = None) -> None:
        self.tag, self.attributes, self.parent = tag, attributes, parent
        self.children: list[Element | str] = []

    def __iter__(self) -> Iterator[Element]:
        for child in self.children:
            if isinstance(child, Element):
                yield child
                yield from child

    @property
    def text(self) -> str:
        inner = "".join(child if isinstance(child, str) else child.text for child in self.children)
        return inner if self.tag in INLINE else f" {inner} "

    def all(self, tag: str, **attributes: str) -> list[Element]:
        return [each for each in self if each.tag == tag and each.has(attributes)]

    def has(self, attributes: dict[str, str]) -> bool:
        return all(self.attributes.get(name.rstrip("_")) == value for name, value in attributes.items())

    def one(self, tag: str, **attributes: str) -> Element:
        (found,) = self.all(tag, **attributes)
        return found


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.root = self.at = Element("", {})

    def handle_starttag(self, tag, attributes):
        element = Element(tag, dict(attributes), self.at)
        self.at.children.append(element)
        if tag not in VOID:
            self.at = element

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.at.tag == tag, f"</{tag}> closes <{self.at.tag}>"
            self.at = self.at.parent

    def handle_data(self, data):
        self.at.children.append(data)


class Page(Element):
    """A page that somebody was given, after all redirects."""

    def __init__(self, visitor: Visitor, response: httpx.Response) -> None:
        super().__init__("", {})
        self.visitor, self.response = visitor, response
        reader = _Reader()
        reader.feed(response.text)
        reader.close()
        assert reader.at is reader.root, f"<{reader.at.tag}> is not closed"
        self.children = reader.root.children

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def path(self) -> str:
        return self.response.url.raw_path.decode()

    @property
    def main(self) -> Element:
        return self.one("main")

    @property
    def said(self) -> str:
        """What the page shows, spaces and line breaks made one."""
        return " ".join(self.main.text.split())

    @property
    def rows(self) -> list[list[str]]:
        """The cells of its tables, as text."""
        return [
            [" ".join(cell.text.split()) for cell in row if cell.tag in ("td", "th")]
            for row in self.main.all("tr")
            if row.all("td")
        ]

    @property
    def ids(self) -> list[int]:
        """The jobs that the page lists."""
        return [int(cell.text) for cell in self.main if cell.attributes.get("class") == "id"]

    @property
    def buttons(self) -> list[str]:
        return [" ".join(button.text.split()) for button in self.main.all("button")]

    def follow(self, text: str) -> Page:
        """Click the first link with this text in it."""
        link = next(each for each in self.main.all("a") if text in " ".join(each.text.split()))
        return self.visitor.get(urljoin(self.path, link.attributes["href"]))

    def press(self, button: str, /, **fields: object) -> Page:
        """Press the button of this text: its form is sent as it is on the page, but for these fields."""
        pressed = next(each for each in self.main.all("button") if " ".join(each.text.split()) == button)
        form = pressed
        while form.tag != "form":
            form = form.parent
        sent: dict[str, object] = {}
        for name, value in _fields(form):
            sent.setdefault(name, []).append(value)
        if name := pressed.attributes.get("name"):
            sent[name] = pressed.attributes["value"]
        return self.visitor.send(form.attributes.get("method", "get"), form.attributes["action"], sent | fields)


def _fields(form: Element) -> Iterator[tuple[str, str]]:
    for field in form:
        name = field.attributes.get("name")
        if field.tag == "input" and name and field.attributes.get("type") != "checkbox":
            yield name, field.attributes.get("value") or ""
        if field.tag == "textarea" and name:
            yield name, field.text.removeprefix("\n")


class Visitor:
    """Somebody with a browser; `log_in` before anything else."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=url, follow_redirects=True, timeout=30)

    def log_in(self) -> Visitor:
        answer = self.client.post("/dashboard/login", data={"secret": PASSWORD})
        assert answer.status_code == 200, answer.text
        return self

    def get(self, path: str, **query: object) -> Page:
        return Page(self, self.client.get(path, params=query or None))

    def send(self, method: str, path: str, fields: dict[str, object]) -> Page:
        if method == "get":
            return self.get(path, **fields)
        return Page(self, self.client.post(path, data=fields))

    def csrf(self) -> str:
        return self.get("/dashboard/schedules").all("input", name="csrf")[0].attributes["value"]


@contextmanager
def visiting(settings: Settings) -> Iterator[Visitor]:
    """Somebody who has logged in to a server that runs as long."""
    config = uvicorn.Config(web.create_app(settings, registry), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    visitor = Visitor(f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}")
    with visitor.client:
        yield visitor.log_in()
    server.should_exit = True
    thread.join(10)
