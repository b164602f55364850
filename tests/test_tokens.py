"""Signed texts that expire."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from itsdangerous import TimestampSigner, URLSafeTimedSerializer

from tick import tokens
from tick.config import Settings
from tick.errors import ConfigurationError

SETTINGS = Settings(dashboard_password="correct horse", secrets=("s1", "s2"))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=8,
)


@settings(deadline=None)
@given(JSON)
def test_what_was_signed_is_read(value):
    token = tokens.sign(SETTINGS, "replay", value)
    assert tokens.read(SETTINGS, "replay", token, 60) == value
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")


def test_a_token_is_for_one_purpose():
    token = tokens.sign(SETTINGS, "replay", {"type": "a"})
    assert tokens.read(SETTINGS, "session", token, 60) is None


def test_it_expires(monkeypatch):
    day_ago = int(time.time()) - 86_401
    monkeypatch.setattr(TimestampSigner, "get_timestamp", lambda self: day_ago)
    token = tokens.sign(SETTINGS, "replay", 1)
    monkeypatch.undo()
    assert tokens.read(SETTINGS, "replay", token, 86_500) == 1
    assert tokens.read(SETTINGS, "replay", token, tokens.REPLAY_SECONDS) is None


@pytest.mark.parametrize("place", [0, 5, -2])
def test_one_that_was_changed_is_none(place):
    token = list(tokens.sign(SETTINGS, "replay", {"type": "send_mail"}))
    token[place] = "A" if token[place] != "A" else "B"
    assert tokens.read(SETTINGS, "replay", "".join(token), 60) is None


@pytest.mark.parametrize("text", ["", ".", "..", "a.b.c", "\N{PILE OF POO}", "\ud800", "x" * 100_000, "\0"])
def test_what_is_no_token_is_none(text):
    assert tokens.read(SETTINGS, "replay", text, 60) is None


def test_nobody_who_has_one_of_the_secrets_can_sign():
    for less in (
        replace(SETTINGS, dashboard_password=None),
        replace(SETTINGS, secrets=("s1",)),
        Settings(secrets=("s1",)),
    ):
        forged = tokens.sign(less, "replay", 1)
        assert tokens.read(SETTINGS, "replay", forged, 60) is None
    for guess in ("", "correct horse", "s1"):
        assert tokens.read(SETTINGS, "replay", URLSafeTimedSerializer(guess, salt="tick.replay").dumps(1), 60) is None


def test_a_secret_means_something_else_as_another_setting():
    one, other = Settings(secrets=("s1",)), Settings(inbound_secrets=("s1",))
    assert tokens.read(other, "replay", tokens.sign(one, "replay", 1), 60) is None


def test_the_order_in_which_secrets_are_listed_is_nobodys_meaning():
    token = tokens.sign(SETTINGS, "replay", 1)
    assert tokens.read(replace(SETTINGS, secrets=("s2", "s1")), "replay", token, 60) == 1


def test_with_nothing_to_sign_with_nothing_is_signed_or_read():
    assert not tokens.can_sign(Settings())
    with pytest.raises(ConfigurationError, match="TICK_DASHBOARD_PASSWORD"):
        tokens.sign(Settings(), "replay", 1)
    key = tokens._stretched("[[], [], [], [], []]")
    forged = URLSafeTimedSerializer(key, salt="tick.replay", signer_kwargs={"digest_method": tokens.hashlib.sha256})
    assert tokens.read(Settings(), "replay", forged.dumps(1), 60) is None


@pytest.mark.parametrize("name", ["secrets", "inbound_secrets", "qstash_keys", "api_keys"])
def test_each_credential_of_a_door_is_something_to_sign_with(name):
    settings = Settings(**{name: ("x",)})
    assert tokens.read(settings, "replay", tokens.sign(settings, "replay", 1), 60) == 1
