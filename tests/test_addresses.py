"""Where outgoing calls may go: spellings, addresses, the allow-list, and the one socket that is opened."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tick.addresses import GuardedNetwork, Rules, parse_url, refusal, resolve, unwrap
from tick.config import Settings, parse_target
from tick.errors import AddressRefused, ConfigurationError


def is_refused(text: str) -> bool:
    return refusal(ipaddress.ip_address(text)) is not None


class TestAddresses:
    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
            "169.254.169.254", "169.254.170.2", "100.64.0.1", "100.100.100.200", "100.127.255.255", "192.0.0.192", "192.0.0.8",
            "168.63.129.16", "192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "192.88.99.1", "224.0.0.1", "239.1.2.3",
            "240.0.0.1", "255.255.255.255", "::", "::1", "::127.0.0.1", "::8.8.8.8", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254",
            "fd20:ce::254", "fec0::1", "ff02::1", "2001:db8::1", "3fff::1", "2001::1", "2001:0:7f00:1::", "2001:10::1", "2002:7f00:1::", "2002:a9fe:a9fe::",
            "2002:808:808::", "64:ff9b:1::a9fe:a9fe", "64:ff9b:1::808:808", "100::1", "5f00::1", "4000::1", "::ffff:127.0.0.1", "::ffff:7f00:1",
            "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:100.100.100.200", "::ffff:0:127.0.0.1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1",
            "64:ff9b::100.64.0.1", "64:ff9b::224.0.0.1",
        ],
    )  # fmt: skip
    def test_that_are_not_public_are_refused(self, address):
        assert is_refused(address)

    @pytest.mark.parametrize(
        "address",
        ["8.8.8.8", "1.1.1.1", "93.184.216.34", "172.15.255.255", "172.32.0.1", "100.63.255.255", "100.128.0.1", "169.253.1.1",
         "168.63.129.15", "2606:4700::1111", "2a00:1450:4001::1", "2001:4860:4860::8888", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"],
    )  # fmt: skip
    def test_that_are_public_are_not(self, address):
        assert not is_refused(address)

    @given(st.ip_addresses())
    def test_nothing_is_public_here_that_python_calls_private(self, address):
        inner = unwrap(address)
        odd = (
            not inner.is_global or inner.is_multicast or inner.is_reserved or inner.is_unspecified or inner.is_loopback
        )
        assert not (odd and refusal(address) is None)

    @given(st.ip_addresses(v=4))
    def test_an_ipv6_spelling_opens_no_ipv4_address(self, address):
        for prefix in ("::ffff:", "64:ff9b::"):
            assert is_refused(f"{prefix}{address}") == is_refused(str(address))
        for hidden in (
            f"::{address}",
            f"64:ff9b:1::{address}",
            str(ipaddress.ip_address((0x2002 << 112) | (int(address) << 80))),
        ):
            assert is_refused(hidden)


class TestUrls:
    @pytest.mark.parametrize(
        ("text", "origin", "target"),
        [
            ("https://example.com", "https://example.com", "/"),
            ("HTTPS://Example.COM./a", "https://example.com", "/a"),
            ("http://example.com:80/a/b?c=d&e#f", "http://example.com", "/a/b?c=d&e"),
            ("http://example.com:8080?x=/y", "http://example.com:8080", "/?x=/y"),
            ("https://example.com#f", "https://example.com", "/"),
            ("https://bücher.example/ü?q=é", "https://xn--bcher-kva.example", "/%C3%BC?q=%C3%A9"),
            ("https://faß.example/", "https://xn--fa-hia.example", "/"),
            ("https://a_b.example/%20%2F?a=%", "https://a_b.example", "/%20%2F?a=%"),
            ('https://example.com/<">{}|^`', "https://example.com", "/%3C%22%3E%7B%7D%7C%5E%60"),
            ("http://[::1]:8080/x", "http://[::1]:8080", "/x"),
            ("http://[0:0::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]", "/"),
            ("http://①②⑦.⓪.⓪.①/", "http://127.0.0.1", "/"),
            ("https://example.com/a@b:c", "https://example.com", "/a@b:c"),
        ],
    )  # fmt: skip
    def test_are_read_into_what_is_sent(self, text, origin, target):
        url = parse_url(text)
        assert (url.origin, url.target) == (origin, target)

    @pytest.mark.parametrize(
        "text",
        [
            "", "example.com", "//example.com/", "ftp://example.com/", "file:///etc/passwd", "gopher://x/", "javascript:alert(1)", "http:/example.com",
            "http:///x", "http://", "https://user@example.com/", "https://user:pw@example.com/", "https://@example.com/", "http://ok.example\\@127.0.0.1/",
            "http://127.0.0.1\\.ok.example/", "http://ok.example/\\..", "http://ok\t.example/", "http://ok.example/\n", "\nhttp://ok.example/", "http://ok.example/\r\nHost: x",
            "http://ok.example/a b", "http://ok .example/", "http://ok.example/\x00", "http://ok.example/\x7f", "http://ok.example/\u200b", "http://ok.example/\u2028",
            "http://ok.example/\ud800", "http://ok.example:0/", "http://ok.example:65536/", "http://ok.example:99999/", "http://ok.example:/", "http://ok.example:80x/", "http://ok.example:8０/",
            "http://ok..example/", "http://.example/", "http://ok.example%00.x/", "http://%31%32%37.0.0.1/", "http://exa$mple/", "http://[::1/", "http://[::1]x/", "http://::1/",
            "http://[fe80::1%25eth0]/", "http://[1.2.3]/", "http://[v1.x]/", "http://" + "a" * 64 + ".example/", "http://xn--\u0080.example/", "http://-ü.example/",
        ],
        ids=ascii,
    )  # fmt: skip
    def test_that_can_be_read_in_two_ways_are_refused(self, text):
        with pytest.raises(AddressRefused):
            parse_url(text)

    def test_are_refused_without_their_password_and_query(self):
        with pytest.raises(AddressRefused) as raised:
            parse_url("https://user:hunter2@example.com/a?token=hunter3")
        assert "hunter" not in str(raised.value)
        assert "https://...@example.com/a" in str(raised.value)

    def test_are_shown_without_their_query(self):
        assert str(parse_url("https://example.com/a?token=hunter2")) == "https://example.com/a"

    @pytest.mark.parametrize(
        ("location", "leads_to"),
        [("/b?c", "https://a.example/b?c"), ("b", "https://a.example/x/b"), ("?q", "https://a.example/x/y?q"), ("//b.example/c", "https://b.example/c"),
         ("http://b.example:81", "http://b.example:81/"), ("HTTP://169.254.169.254/", "http://169.254.169.254/")],
    )  # fmt: skip
    def test_lead_on_by_a_redirect(self, location, leads_to):
        url = parse_url("https://a.example/x/y?z").join(location)
        assert f"{url.origin}{url.target}" == leads_to

    @pytest.mark.parametrize(
        "location",
        ["ftp://b.example/", "https://u:p@b.example/", "/\\b.example/", "\t//b.example", "https://", "http://[::1"],
    )
    def test_are_read_as_strictly_after_a_redirect(self, location):
        with pytest.raises(AddressRefused):
            parse_url("https://a.example/").join(location)

    @given(st.text(max_size=60) | st.from_regex(r"\Ahttps?://[a-z0-9.@:\\\[\]%/?#-]{0,30}\Z"))
    def test_anything_is_a_url_or_refused(self, text):
        try:
            url = parse_url(text)
        except AddressRefused:
            return
        assert (url.origin + url.target).isascii()
        assert parse_url(url.origin + url.target) == url


class TestTheAllowList:
    @pytest.mark.parametrize(
        ("targets", "host", "port", "address"),
        [
            ((), "example.com", 443, "8.8.8.8"),
            ((), "example.com", 80, "2606:4700::1111"),
            (("localhost",), "localhost", 8080, "127.0.0.1"),
            (("LocalHost:8080",), "localhost", 8080, "::1"),
            (("*.internal",), "api.eu.internal", 9000, "10.0.0.1"),
            (("10.0.0.0/8",), "api.internal", 9000, "10.1.2.3"),
            (("10.1.2.3",), "api.internal", 9000, "10.1.2.3"),
            (("10.1.2.3:9000",), "api.internal", 9000, "10.1.2.3"),
            (("10.0.0.0/8",), "api.internal", 80, "::ffff:10.1.2.3"),
            (("::1",), "::1", 80, "::1"),
            (("[::1]:8080",), "::1", 8080, "::1"),
            (("fd00::/8",), "api.internal", 8080, "fd12::1"),
            (("example.com:8443",), "example.com", 8443, "8.8.8.8"),
            (("0.0.0.0/0", "::/0"), "anything", 1, "127.0.0.1"),
        ],
    )  # fmt: skip
    def test_opens(self, targets, host, port, address):
        Rules(targets).check(host, port, address)

    @pytest.mark.parametrize(
        ("targets", "host", "port", "address"),
        [
            ((), "localhost", 80, "127.0.0.1"),
            ((), "example.com", 8443, "8.8.8.8"),
            ((), "example.com", 22, "8.8.8.8"),
            (("localhost:8080",), "localhost", 8081, "127.0.0.1"),
            (("localhost",), "localhost.evil.example", 80, "127.0.0.1"),
            (("localhost",), "evil", 80, "127.0.0.1"),
            (("*.internal",), "internal", 80, "10.0.0.1"),
            (("*.internal",), "evilinternal", 80, "10.0.0.1"),
            (("*.internal",), "api.internal.evil.example", 80, "10.0.0.1"),
            (("10.0.0.0/8",), "api.internal", 80, "192.168.0.1"),
            (("10.1.2.3:9000",), "api.internal", 9001, "10.1.2.3"),
            (("10.0.0.0/8",), "api.internal", 80, "::10.0.0.1"),
            (("127.0.0.1",), "localhost", 80, "::1"),
        ],
    )  # fmt: skip
    def test_does_not_open(self, targets, host, port, address):
        with pytest.raises(AddressRefused) as raised:
            Rules(targets).check(host, port, address)
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        assert f"TICK_HTTP_ALLOW={shown}" in str(raised.value)
        Rules([shown]).check(host, port, address)

    @pytest.mark.parametrize("address", ["", "x", "1.2.3", "0x7f.1", "2130706433"])
    def test_judges_nothing_that_is_no_address(self, address):
        with pytest.raises(AddressRefused):
            Rules(["x"]).check("x", 80, address)

    @pytest.mark.parametrize("text", ["*", "*.", "a b", "http://x", "x/", "[::1", "a:", "a:b", "a:0", "a:70000", "ü.example", "10.0.0.1/8", "10.0.0.0/33", "fd00::/8:80", "1::2::3", "-:1:x", "[]"])  # fmt: skip
    def test_that_cannot_be_read_is_an_error_at_start(self, text, tmp_path):
        with pytest.raises(ConfigurationError, match="http_allow .TICK_HTTP_ALLOW.: "):
            Settings.load({"TICK_HTTP_ALLOW": f"fine.example,{text}"}, start=tmp_path)

    def test_is_a_setting(self, tmp_path):
        (tmp_path / "pyproject.toml").write_text('[tool.tick]\nhttp_allow = ["localhost:8080", "10.0.0.0/8"]\n')
        assert Settings.load({}, start=tmp_path).http_allow == ("localhost:8080", "10.0.0.0/8")
        assert Settings.load({"TICK_HTTP_ALLOW": "a, *.b:80"}, start=tmp_path).http_allow == ("a", "*.b:80")
        assert Settings.load({}, start=tmp_path.parent).http_allow == ()

    @given(st.text("0123456789abcdefx.:/*[]-_", max_size=25))
    def test_what_a_setting_may_be_is_what_the_rules_can_read(self, text):
        try:
            parse_target(text)
        except ValueError:
            return
        Rules([text])


@pytest.fixture
def listener():
    """A port of 127.0.0.1 that counts who connects."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def connect(network: GuardedNetwork, host: str, port: int):
    async def open_and_close():
        stream = await network.connect_tcp(host, port, timeout=5)
        where = stream.get_extra_info("server_addr")
        await stream.aclose()
        return where[0]

    return asyncio.run(open_and_close())


def resolver(*answers: list[str]):
    """A resolver that answers differently each time, and counts."""
    remaining = list(answers)

    async def resolve(host: str, port: int) -> list[str]:
        return remaining.pop(0)

    resolve.remaining = remaining
    return resolve


class TestTheSocket:
    def test_goes_to_the_address_that_was_judged(self, listener):
        changing = resolver(["127.0.0.1"], ["169.254.169.254"])
        network = GuardedNetwork(Rules(["127.0.0.1"]), changing)
        assert connect(network, "rebind.example", listener.getsockname()[1]) == "127.0.0.1"
        assert changing.remaining == [["169.254.169.254"]]
        with pytest.raises(AddressRefused, match=r"its address 169.254.169.254 is link-local, where clouds keep"):
            connect(network, "rebind.example", listener.getsockname()[1])

    @pytest.mark.parametrize("answers", [["8.8.8.8", "127.0.0.1"], ["127.0.0.1", "8.8.8.8"], ["8.8.8.8", "::1"]])
    def test_is_not_opened_when_any_answer_is_refused(self, answers, listener):
        with pytest.raises(AddressRefused):
            connect(GuardedNetwork(Rules(), resolver(answers)), "mixed.example", 80)

    @pytest.mark.parametrize(
        "host",
        ["127.0.0.1", "localhost", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "0", "::1", "::ffff:127.0.0.1"],
    )
    def test_is_not_opened_to_this_machine_in_any_spelling(self, host, listener):
        with pytest.raises(AddressRefused, match="loopback|this very host"):
            connect(GuardedNetwork(Rules()), host, 80)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()

    def test_goes_to_the_next_address_when_one_does_not_answer(self, listener):
        port = listener.getsockname()[1]
        network = GuardedNetwork(Rules(["127.0.0.0/8"]), resolver(["127.0.0.2", "127.0.0.1"]))
        assert connect(network, "two.example", port) == "127.0.0.1"

    def test_that_nothing_answers_is_a_connection_error(self, listener):
        port = listener.getsockname()[1]
        listener.close()
        with pytest.raises(httpcore.ConnectError):
            connect(GuardedNetwork(Rules(["127.0.0.0/8"]), resolver(["127.0.0.2", "127.0.0.1"])), "two.example", port)

    @pytest.mark.parametrize("host", ["nowhere.invalid", "a..b", "x" * 64])
    def test_that_a_host_is_unknown_is_a_connection_error(self, host):
        with pytest.raises(httpcore.ConnectError, match=f"{host} cannot be resolved"):
            connect(GuardedNetwork(Rules()), host, 80)


class TestResolving:
    def test_gives_each_address_once(self):
        assert asyncio.run(resolve("127.0.0.1", 80)) == ["127.0.0.1"]
        assert set(asyncio.run(resolve("localhost", 80))) <= {"127.0.0.1", "::1"}

    def test_holds_nobody_up_who_has_stopped_waiting(self, monkeypatch):
        asked, answer = threading.Event(), threading.Event()

        def slow(*args, **kwargs):
            asked.set()
            answer.wait(30)
            raise OSError("too late")

        monkeypatch.setattr(socket, "getaddrinfo", slow)

        async def give_up():
            waiting = asyncio.create_task(resolve("slow.example", 80))
            await asyncio.to_thread(asked.wait, 30)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

        asyncio.run(give_up())
        threads = [thread for thread in threading.enumerate() if thread.name == "tick-resolver"]
        assert threads and all(thread.daemon for thread in threads)
        answer.set()
        for thread in threads:
            thread.join(30)
