"""The world around the application, for the demo and the tests: a mail server, and a CRM with a payment service.

Both are real servers on ports of their own, and both can fail as real ones do.
"""

from __future__ import annotations

import asyncio
import email
import json
import threading
from collections import Counter
from collections.abc import Callable
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

from aiosmtpd.controller import Controller


class Mailbox(Controller):
    """An SMTP server that keeps what it accepts.

    `refuse` maps an address to the answers that its next messages get; `hold` lets a message wait, after it was
    accepted and before the sender is told so, until `release`.
    """

    def __init__(self, on_message: Callable[[Message], None] = lambda message: None) -> None:
        super().__init__(self, hostname="127.0.0.1", port=0)
        self.on_message = on_message
        self.open = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.messages: list[Message] = []
        self.refuse: dict[str, list[str]] = {}
        self.open.set()

    def hold(self) -> None:
        self.open.clear()

    def release(self) -> None:
        self.open.set()

    @property
    def url(self) -> str:
        return f"smtp://127.0.0.1:{self.port}"

    def to(self, address: str) -> list[Message]:
        """The messages to an address, in the order they came."""
        return [message for message in list(self.messages) if message["To"] == address]

    def _trigger_server(self) -> None:
        # The port that the system has chosen for 0: to look for a free one first would be a race.
        self.port = self.server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        super()._trigger_server()  # type: ignore[no-untyped-call]

    async def handle_RCPT(self, _smtp: Any, _session: Any, envelope: Any, address: str, _options: Any) -> str:  # noqa: N802
        if self.refuse.get(address):
            return self.refuse[address].pop(0)
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _smtp: Any, _session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        message = email.message_from_bytes(envelope.content)
        self.messages.append(message)
        self.on_message(message)
        while not self.open.is_set():  # noqa: ASYNC110 - it is set in another thread
            await asyncio.sleep(0.01)
        return "250 accepted"


class Answer(NamedTuple):
    """What the CRM says next, instead of doing what it was asked; `hangs` says nothing at all."""

    status: int = 200
    body: str = ""
    retry_after: str | None = None
    hangs: bool = False


class Request(NamedTuple):
    """A request that the CRM was sent, and what it answered; 0 when it did not."""

    path: str
    body: dict[str, Any]
    status: int


class Services(ThreadingHTTPServer):
    """PUT /contacts/ID of a CRM, and POST /charges of a payment service.

    `script` maps an e-mail address to the answers that its next requests get. Charges wait while the gate is closed;
    how many of a customer were ever under way at once is in `most_at_once`.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.gate = threading.Event()
        self.closing = threading.Event()
        self.reset()

    def reset(self) -> None:
        self.contacts: dict[str, dict[str, Any]] = {}
        self.charges: dict[str, dict[str, Any]] = {}
        self.script: dict[str, list[Answer]] = {}
        self.requests: list[Request] = []
        self.under_way: Counter[int] = Counter()
        self.most_at_once: Counter[int] = Counter()
        self.gate.set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self.closing.set()
        self.gate.set()
        self.shutdown()
        self.server_close()

    def asked(self, email: str) -> list[int]:
        """The statuses that the requests for an address got, in their order."""
        return [request.status for request in list(self.requests) if request.body.get("email") == email]

    def put_contact(self, id: str, contact: dict[str, Any]) -> Answer:
        answers = self.script.get(contact["email"])
        if answers:
            return answers.pop(0)
        self.contacts[id] = contact
        return Answer(200, json.dumps(contact))

    def charge(self, key: str, charge: dict[str, Any]) -> Answer:
        customer = charge["customer"]
        with self.lock:
            self.under_way[customer] += 1
            self.most_at_once[customer] = max(self.most_at_once[customer], self.under_way[customer])
        self.gate.wait(20)
        with self.lock:
            self.under_way[customer] -= 1
            first = self.charges.setdefault(key, charge)
        return Answer(200, json.dumps(first))


class _Handler(BaseHTTPRequestHandler):
    server: Services

    def do_PUT(self) -> None:
        body = self.read()
        self.answer(body, self.server.put_contact(self.path.rpartition("/")[2], body))

    def do_POST(self) -> None:
        body = self.read()
        self.answer(body, self.server.charge(self.headers["Idempotency-Key"], body))

    def read(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        return body

    def answer(self, body: dict[str, Any], answer: Answer) -> None:
        self.server.requests.append(Request(self.path, body, 0 if answer.hangs else answer.status))
        if answer.hangs:
            self.server.closing.wait()
            return
        content = answer.body.encode()
        self.send_response(answer.status)
        if answer.retry_after:
            self.send_header("Retry-After", answer.retry_after)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the demo prints what matters."""
