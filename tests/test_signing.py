"""Signatures, against the official library, the specification's vector and malformed everything."""

from __future__ import annotations

import base64
import random
import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from tick.errors import ConfigurationError
from tick.signing import check_secret, sign, verify

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
OTHER = "whsec_" + base64.b64encode(bytes(range(32))).decode()
BODY = b'{"test": 2432232314}'
NOW = 1614265330


def a_secret(length: int) -> str:  # the same in each process, as the names of parametrised tests have to be
    return "whsec_" + base64.b64encode(random.Random(length).randbytes(length)).decode()


class TestTheSpecification:
    def test_its_vector_is_what_we_sign(self):
        assert sign("msg_p5jXN8AQM9LWM0D4loKWxJek", NOW, BODY, [SECRET]) == {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }

    def test_its_vector_is_what_we_verify(self):
        headers = {
            "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
            "webhook-timestamp": "1614265330",
            "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
        }
        assert verify(headers, BODY, [SECRET], NOW)


class TestTheOfficialLibrary:
    @pytest.mark.parametrize("secret", [SECRET, OTHER, a_secret(24), a_secret(64)])
    @pytest.mark.parametrize("body", [b"", b"{}", BODY, '{"é": "\U0001f600"}'.encode()])
    def test_verifies_ours_and_we_its(self, secret, body):
        now = int(time.time())
        Webhook(secret).verify(body, sign("job_1", now, body, [secret]), json_parse=False)
        theirs = Webhook(secret).sign("msg_1", datetime.fromtimestamp(now, UTC), body.decode())
        headers = {"webhook-id": "msg_1", "webhook-timestamp": str(now), "webhook-signature": theirs}
        assert verify(headers, body, [secret], now)

    @pytest.mark.parametrize("receiver", [SECRET, OTHER])
    def test_verifies_with_the_old_secret_and_with_the_new_one(self, receiver):
        headers = sign("job_1", int(time.time()), BODY, [OTHER, SECRET])
        assert headers["webhook-signature"].count("v1,") == 2
        assert Webhook(receiver).verify(BODY, headers) == {"test": 2432232314}
        assert verify(headers, BODY, [receiver], time.time())

    def test_refuses_what_we_refuse(self):
        headers = sign("job_1", int(time.time()) - 301, BODY, [SECRET])
        with pytest.raises(WebhookVerificationError):
            Webhook(SECRET).verify(BODY, headers)
        assert not verify(headers, BODY, [SECRET], time.time())


class TestVerifying:
    HEADERS = sign("job_1", NOW, BODY, [SECRET])

    def test_while_the_secret_is_changed_either_will_do(self):
        assert verify(self.HEADERS, BODY, [OTHER, SECRET], NOW)
        assert verify(sign("job_1", NOW, BODY, [OTHER, SECRET]), BODY, [SECRET], NOW)
        assert not verify(self.HEADERS, BODY, [OTHER], NOW)

    def test_headers_are_named_in_any_case(self):
        assert verify({name.title(): value for name, value in self.HEADERS.items()}, BODY, [SECRET], NOW)

    def test_signatures_of_other_schemes_are_passed_over(self):
        signatures = f"v1a,aGVsbG8= v2,x {self.HEADERS['webhook-signature']} v1, nonsense"
        assert verify(self.HEADERS | {"webhook-signature": signatures}, BODY, [SECRET], NOW)

    @pytest.mark.parametrize(("shift", "is_fresh"), [(-301, False), (-300, True), (0, True), (300, True), (301, False)])
    def test_the_timestamp_is_at_most_five_minutes_off(self, shift, is_fresh):
        assert verify(self.HEADERS, BODY, [SECRET], NOW + shift) is is_fresh

    def test_the_tolerance_is_an_argument(self):
        assert verify(self.HEADERS, BODY, [SECRET], NOW + 900, tolerance=900)
        assert not verify(self.HEADERS, BODY, [SECRET], NOW + 11, tolerance=10)
        assert not verify(self.HEADERS, BODY, [SECRET], float("nan"))

    @pytest.mark.parametrize(
        "changed",
        [
            {"webhook-id": "job_2"},
            {"webhook-id": ""},
            {"webhook-timestamp": str(NOW + 1)},
            {"webhook-timestamp": f" {NOW}"},
            {"webhook-timestamp": f"+{NOW}"},
            {"webhook-timestamp": f"{NOW}.0"},
            {"webhook-timestamp": "１６１４２６５３３０"},
            {"webhook-timestamp": "9" * 5000},
            {"webhook-timestamp": "nan"},
            {"webhook-timestamp": None},
            {"webhook-timestamp": NOW},
            {"webhook-signature": ""},
            {"webhook-signature": "v1,"},
            {"webhook-signature": "v1,é"},
            {"webhook-signature": "v1,\ud800"},
            {"webhook-signature": b"v1,"},
            {"webhook-signature": HEADERS["webhook-signature"].removeprefix("v1,")},
            {"webhook-signature": "v1a," + HEADERS["webhook-signature"].removeprefix("v1,")},
            {"webhook-signature": HEADERS["webhook-signature"][:-1]},
            {"webhook-signature": HEADERS["webhook-signature"].lower()},
        ],
        ids=str,
    )
    def test_a_header_that_was_changed_is_refused(self, changed):
        assert verify(self.HEADERS | changed, BODY, [SECRET], NOW) is False

    @pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
    def test_a_header_that_is_missing_is_refused(self, missing):
        headers = {name: value for name, value in self.HEADERS.items() if name != missing}
        assert verify(headers, BODY, [SECRET], NOW) is False

    @pytest.mark.parametrize("body", [b"", BODY + b" ", BODY.replace(b"2", b"3", 1)])
    def test_a_body_that_was_changed_is_refused(self, body):
        assert not verify(self.HEADERS, body, [SECRET], NOW)

    def test_a_dot_does_not_move_the_border_between_id_and_timestamp(self):
        old = NOW - 1000
        headers = sign("job_1", old, f"{NOW}.".encode() + BODY, [SECRET])
        moved = headers | {"webhook-id": f"job_1.{old}", "webhook-timestamp": str(NOW)}
        assert not verify(moved, BODY, [SECRET], NOW)

    @pytest.mark.parametrize("secrets", [[], [""], ["whsec_"], ["hunter2"], ["whsec_é"]])
    def test_what_is_no_secret_verifies_nothing(self, secrets):
        assert not verify(self.HEADERS, BODY, secrets, NOW)
        assert verify(self.HEADERS, BODY, [*secrets, SECRET], NOW)

    texts = st.text(max_size=50) | st.none() | st.integers() | st.binary(max_size=20)

    @given(
        headers=st.dictionaries(
            st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature", "Webhook-Id"]) | texts, texts
        ),
        body=st.binary(max_size=100),
        secrets=st.lists(st.text(max_size=60) | st.just(SECRET), max_size=3),
        now=st.floats() | st.just(float(NOW)),
    )
    def test_nothing_malformed_raises_or_passes(self, headers, body, secrets, now):
        assert verify(headers, body, secrets, now) is False
        assert verify(self.HEADERS | headers, body + b"x", secrets, now) is False

    @given(
        id=st.from_regex(r"\A[!-\-/-~]{1,40}\Z"),
        timestamp=st.integers(0, 10**11),
        body=st.binary(max_size=200),
        secrets=st.lists(st.binary(min_size=24, max_size=64), min_size=1, max_size=3),
    )
    def test_what_is_signed_verifies_with_each_secret(self, id, timestamp, body, secrets):
        texts = ["whsec_" + base64.b64encode(secret).decode() for secret in secrets]
        headers = sign(id, timestamp, body, texts)
        assert all(verify(headers, body, [text], timestamp) for text in texts)


class TestSecrets:
    @pytest.mark.parametrize("length", [24, 32, 64])
    def test_are_24_to_64_bytes(self, length):
        assert len(check_secret(a_secret(length))) == length

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            (a_secret(23), "is 23 bytes long"),
            (a_secret(65), "is 65 bytes long"),
            ("", "does not start with whsec_"),
            ("whsec_", "is 0 bytes long"),
            (OTHER.removeprefix("whsec_"), "does not start with whsec_"),
            ("whsec_" + "hunter2!" * 5, "is not base64"),
            ("whsec_" + "-_" * 22, "is not base64"),
            (SECRET + "\n", "is not base64"),
            (f" {SECRET}", "is not base64"),
            ("whsec_" + "é" * 40, "is not base64"),
            ("whsk_" + "A" * 44, "is not base64"),
        ],
        ids=lambda value: value[:20],
    )
    def test_what_is_none_is_refused_with_a_command_that_makes_one(self, text, said):
        with pytest.raises(ConfigurationError) as raised:
            check_secret(text)
        assert said in str(raised.value)
        assert 'echo "whsec_$(openssl rand -base64 32)"' in str(raised.value)
        assert not (len(text) > 10 and text.strip()[6:] in str(raised.value))
        assert "hunter2" not in str(raised.value)
        with pytest.raises(ConfigurationError):
            sign("job_1", NOW, BODY, [text])

    @pytest.mark.parametrize("id", ["", "a.b", "a b", "a\n", "é", "\ud800"], ids=repr)
    def test_an_id_that_could_be_read_in_two_ways_is_refused(self, id):
        with pytest.raises(ConfigurationError, match="webhook id"):
            sign(id, NOW, BODY, [SECRET])
