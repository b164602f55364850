"""Where outgoing calls may go: URLs read strictly, every address judged, connections made to the one judged."""

from __future__ import annotations

import asyncio
import concurrent.futures
import ipaddress
import logging
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urljoin

import httpcore

from .config import parse_target
from .errors import AddressRefused

if TYPE_CHECKING:
    import ssl

# At DEBUG it writes the headers of answers, and receivers send back what they were sent.
logging.getLogger("httpcore").setLevel(logging.INFO)

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]

OPEN_PORTS = (80, 443)
CONNECT_TIMEOUT = 5.0
"""Seconds for one address of a host, after which the next one is tried."""
KEEP_ALIVE = 1.0
"""Seconds that a connection is kept for another call: less than servers keep theirs, so that they do not collide."""

# What ipaddress calls global and is not for us, and what it calls by no name that helps: IANA's registries of
# special-purpose addresses, and the addresses where clouds answer with credentials.
_SPECIAL = {
    ipaddress.ip_network(network): why
    for network, why in {
        "0.0.0.0/8": "this very host",
        "10.0.0.0/8": "a private address",
        "100.64.0.0/10": "an address inside a provider's network",
        "127.0.0.0/8": "a loopback address",
        "168.63.129.16/32": "where Azure keeps its metadata",
        "169.254.0.0/16": "link-local, where clouds keep their metadata",
        "172.16.0.0/12": "a private address",
        "192.0.0.0/24": "reserved, and where Oracle keeps its metadata",
        "192.88.99.0/24": "a 6to4 relay",
        "192.168.0.0/16": "a private address",
        "198.18.0.0/15": "for benchmarks",
        "224.0.0.0/4": "a multicast address",
        "240.0.0.0/4": "reserved",
        "::1/128": "a loopback address",
        "fc00::/7": "a private address",
        "fe80::/10": "link-local",
        "fec0::/10": "a private address",
        "ff00::/8": "a multicast address",
        "2001::/23": "reserved, and where Teredo hides IPv4 addresses",
        "2002::/16": "6to4, which hides an IPv4 address",
        "3fff::/20": "for documentation",
    }.items()
}
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9a-f:.]+\]|[^\s:/?#@\[\]%]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<target>[/?][^\s#]*)?(?:#\S*)?",
    re.IGNORECASE,
)
_HOST = re.compile(r"[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True)
class Url:
    """A URL in the parts that a request is made of.

    Attributes:
        scheme: http or https.
        host: a name, in lower case and ASCII, or an address, without brackets.
        port: the one given, or the scheme's.
        target: path and query, percent-encoded.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _port(self.scheme) else f"{host}:{self.port}"

    @property
    def origin(self) -> str:
        return f"{self.scheme}://{self.authority}"

    def __str__(self) -> str:
        """As errors show it: without the query, which may hold what is nobody's business."""
        return self.origin + self.target.partition("?")[0]

    def join(self, location: str) -> Url:
        """Where a redirect leads from here. Raises AddressRefused as `parse_url` does."""
        _check_spelling(location)
        if re.match("[a-z][a-z0-9+.-]*:", location, re.IGNORECASE):
            return parse_url(location)
        try:
            return parse_url(urljoin(self.origin + self.target, location))
        except ValueError as error:
            raise AddressRefused(f"{_shown(location)} is not a URL to follow: {error}") from None


def parse_url(text: str) -> Url:
    """Read a URL, the one time: what is judged is what is called.

    Raises AddressRefused for other schemes, and for spellings that programs read in different ways.
    """
    _check_spelling(text)
    match = _URL.fullmatch(text)
    if match is None:
        raise AddressRefused(
            f"{_shown(text)} is not a URL to call: write http:// or https://, a host (no user, no password), and a path"
        )
    scheme = match["scheme"].lower()
    port = int(match["port"] or _port(scheme))
    if not 1 <= port <= 65_535:
        raise AddressRefused(f"{_shown(text)}: {port} is not a port from 1 to 65535")
    target = quote(match["target"] or "/", safe="!$%&'()*+,/:;=?@[]~")
    return Url(scheme, _host(match["host"]), port, target if target.startswith("/") else f"/{target}")


def _check_spelling(text: str) -> None:
    if not text.isprintable() or "\\" in text:
        raise AddressRefused(
            f"{_shown(text)} holds a backslash or a control character, which programs read differently"
        )


def _port(scheme: str) -> int:
    return 443 if scheme == "https" else 80


def _host(text: str) -> str:
    if text.startswith("["):
        return str(_address(text[1:-1]))
    name = text.lower().rstrip(".")
    if not name.isascii():
        import idna

        try:
            name = idna.encode(name, uts46=True).decode()
        except idna.IDNAError as error:
            raise AddressRefused(f"{_shown(text)} is not a host's name: {error}") from None
    if not _HOST.fullmatch(name):
        raise AddressRefused(f"{_shown(text)} is not a host's name")
    return name


def _address(text: str) -> Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise AddressRefused(f"{_shown(text)} is not an address") from None


def _shown(text: str) -> str:
    return ascii(re.sub("//[^/]*@", "//...@", text.partition("?")[0])[:100])


def refusal(address: Address) -> str | None:
    """Why an address is not one of the public internet; None for one that is."""
    inner = unwrap(address)
    why = next((why for network, why in _SPECIAL.items() if inner in network), None)
    if why or not inner.is_global or (inner.version == 6 and inner not in _GLOBAL_UNICAST):
        return why or "not a public address"
    return None


def unwrap(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, where networks translate it (mapped, NAT64); else the address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address in _NAT64:
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        return address.ipv4_mapped or address
    return address


class Rules:
    """What `http_allow` opens beyond ports 80 and 443 of public addresses."""

    def __init__(self, targets: Iterable[str] = ()) -> None:
        self._names: list[tuple[str, int | None]] = []
        self._networks: list[tuple[Network, int | None]] = []
        for name, port in map(parse_target, targets):
            if "/" in name:
                self._networks.append((ipaddress.ip_network(name), port))
            else:
                self._names.append((name, port))

    def check(self, host: str, port: int, address: str) -> None:
        """Raises AddressRefused, and says which setting opens it, where `host` at `address` may not be called."""
        ip = _address(address)
        if self._opens(host, port, ip):
            return
        why = refusal(ip)
        if why is None and port in OPEN_PORTS:
            return
        where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        reason = f"its address {address} is {why}" if why else "its port is neither 80 nor 443"
        raise AddressRefused(
            f"{where} is not called, because {reason}; if it is yours, open it: TICK_HTTP_ALLOW={where}, "
            f'or [tool.tick] http_allow = ["{where}"]'
        )

    def _opens(self, host: str, port: int, address: Address) -> bool:
        inner = unwrap(address)
        return any(_fits(host, name) and open in (None, port) for name, open in self._names) or any(
            inner in network and open in (None, port) for network, open in self._networks
        )


def _fits(host: str, name: str) -> bool:
    return host.endswith(name[1:]) if name.startswith("*") else host == name


async def resolve(host: str, port: int) -> list[str]:
    """Every address of a host, each once, in the resolver's order. Raises OSError when there is none.

    In a daemon thread: a loop that ends waits for the threads of its executor, and nothing stops a resolver.
    """
    answer: concurrent.futures.Future[list[str]] = concurrent.futures.Future()
    answer.set_running_or_notify_cancel()  # From here on it cannot be cancelled, so the thread may always set it.

    def look_up() -> None:
        try:
            # As bytes: a text would go through an encoding of Python's own, which refuses some names.
            found = socket.getaddrinfo(host.encode(), port, type=socket.SOCK_STREAM)
            answer.set_result(list(dict.fromkeys(str(where[0]) for *_, where in found)))
        except OSError as error:
            answer.set_exception(error)

    threading.Thread(target=look_up, name="tick-resolver", daemon=True).start()
    return await asyncio.wrap_future(answer)


class GuardedNetwork(httpcore.AsyncNetworkBackend):
    """Opens connections only to addresses that the rules let through.

    Judging happens here, below the pool, because this is where a host becomes a socket: the address that was judged
    is the one connected to, for every hop, while the pool above keeps the host for the Host header, the certificate
    and the choice of a connection to use again. Judging a URL first and handing the name on would resolve it twice.
    """

    def __init__(self, rules: Rules, resolve: Resolve = resolve) -> None:
        self._rules = rules
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first address that answers. Raises AddressRefused if any of them is refused."""
        addresses = await self._addresses(host, port)
        for address in addresses:
            self._rules.check(host, port, address)
        for address in addresses[:-1]:
            try:
                return await self._network.connect_tcp(
                    address, port, min(timeout or CONNECT_TIMEOUT, CONNECT_TIMEOUT), local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._network.connect_tcp(addresses[-1], port, timeout, local_address, socket_options)

    async def _addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            return await self._resolve(host, port)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} cannot be resolved: {error}") from None


def open_pool(rules: Rules, resolve: Resolve = resolve) -> httpcore.AsyncConnectionPool:
    """Connections that only go where the rules let them; no proxy, no cookie, no redirect and no decoding."""
    return httpcore.AsyncConnectionPool(
        ssl_context=_tls(),
        # How many calls there are at once is the tick's to say.
        max_connections=None,
        keepalive_expiry=KEEP_ALIVE,
        network_backend=GuardedNetwork(rules, resolve),
    )


@cache
def _tls() -> ssl.SSLContext:
    return httpcore.default_ssl_context()
