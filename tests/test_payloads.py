"""A payload at the door."""

from __future__ import annotations

import dataclasses
import enum
import functools
import uuid
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal

import msgspec
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from tick.errors import HandlerError, InvalidPayload
from tick.handlers import Context
from tick.payloads import MOST_BYTES, Parameters, encode


@dataclasses.dataclass
class Address:
    street: str
    number: int = 1


class Colour(enum.Enum):
    RED = "red"


def parameters(function) -> Parameters:
    return Parameters(function, "it", Context)


class TestEncode:
    def test_is_json(self):
        assert encode("it", {"a": [1, None, True, 1.5, "é"], "b": {}}) == '{"a":[1,null,true,1.5,"é"],"b":{}}'.encode()

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            (float("nan"), "nan is not a JSON number"),
            ([{"deep": float("-inf")}], "-inf is not a JSON number"),
            ("a\0b", "NUL character"),
            ({"a\0b": 1}, "NUL character"),
            ("\\\0", "NUL character"),
            ("\ud800", "cannot be written as JSON"),
            (object(), "cannot be written as JSON"),
            ([10**5000], "cannot be written as JSON"),
            (functools.reduce(lambda inner, _: [inner], range(40), 1), "nested deeper than 32 levels"),
            ("x" * MOST_BYTES, "bytes of JSON, of 65,536 at most; store the data, and pass its id"),
        ],
        ids=range(10),
    )
    def test_refuses_what_postgres_cannot_hold_or_should_not_have_to(self, value, said):
        with pytest.raises(InvalidPayload, match=said) as raised:
            encode("it", {"value": value})
        assert str(raised.value).startswith("the payload does not fit it: ")

    def test_refuses_what_holds_itself(self):
        knot: dict = {}
        knot["knot"] = knot
        with pytest.raises(InvalidPayload, match="cannot be written as JSON"):
            encode("it", knot)

    def test_takes_what_only_looks_like_a_nul(self):
        assert encode("it", {"a": "\\u0000"}) == rb'{"a":"\\u0000"}'

    def test_takes_all_that_is_allowed_and_no_byte_more(self):
        assert len(encode("it", {"a": "x" * (MOST_BYTES - 8)})) == MOST_BYTES
        with pytest.raises(InvalidPayload):
            encode("it", {"a": "x" * (MOST_BYTES - 7)})

    json = some.recursive(
        some.none() | some.booleans() | some.integers(-(2**63), 2**64 - 1) | some.floats() | some.text(),
        lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=5), inner, max_size=4),
        max_leaves=12,
    )

    @given(payload=some.dictionaries(some.text(max_size=5), json, max_size=4))
    @settings(max_examples=200, deadline=None)
    def test_what_it_takes_postgres_takes_and_gives_back_as_the_same_values(self, worker_url, payload):
        try:
            encoded = encode("it", payload)
        except InvalidPayload:
            return
        if (connection := _connections.get(worker_url)) is None:
            connection = _connections[worker_url] = psycopg.connect(worker_url, autocommit=True)
        (back,) = connection.execute("select %s::jsonb", [encoded.decode()]).fetchone()
        assert same(back, msgspec.json.decode(encoded))


def same(back, sent) -> bool:
    """Whether the values are equal; jsonb keeps no difference between 1e16 and its digits."""
    if isinstance(sent, dict):
        return back.keys() == sent.keys() and all(same(back[key], sent[key]) for key in sent)
    if isinstance(sent, list):
        return len(back) == len(sent) and all(map(same, back, sent))
    return (float(back) if isinstance(sent, float) else back) == sent


_connections: dict[str, psycopg.Connection] = {}


@pytest.fixture(scope="module", autouse=True)
def _closed():
    yield
    for connection in _connections.values():
        connection.close()
    _connections.clear()


class TestFit:
    def test_converts_to_what_the_handler_says(self):
        def work(
            at: datetime, day: date, wait: timedelta, price: Decimal, id: uuid.UUID, colour: Colour, home: Address,
            tags: set[str], pair: tuple[int, str], size: Literal["s", "m"], maybe: int | None, anything, raw: bytes,
        ): ...  # fmt: skip

        given = {
            "at": "2026-03-01T00:00:00Z", "day": "2026-03-01", "wait": "PT1H", "price": "1.10", "id": str(uuid.UUID(int=7)),
            "colour": "red", "home": {"street": "x"}, "tags": ["a", "a"], "pair": [1, "x"], "size": "m", "maybe": None,
            "anything": {"a": [1]}, "raw": "/wA=",
        }  # fmt: skip
        assert parameters(work).fit(given) == {
            "at": datetime(2026, 3, 1, tzinfo=UTC), "day": date(2026, 3, 1), "wait": timedelta(hours=1), "price": Decimal("1.10"),
            "id": uuid.UUID(int=7), "colour": Colour.RED, "home": Address("x", 1), "tags": {"a"}, "pair": (1, "x"), "size": "m",
            "maybe": None, "anything": {"a": [1]}, "raw": b"\xff\0",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("payload", "said"),
        [
            ({}, "missing required field `name`"),
            ({"name": 5}, r"Expected `str`, got `int` - at `\$.name`"),
            ({"name": None}, r"Expected `str`, got `null` - at `\$.name`"),
            ({"name": "a", "nam": 1}, "unknown field `nam`"),
            ({"name": "a", "home": {"street": 1}}, r"at `\$.home.street`"),
            ({"name": "a", "ages": [1, "x"]}, r"at `\$.ages\[1\]`"),
            ({"name": "a", "small": 11}, r"Expected `int` <= 10 - at `\$.small`"),
            ({"name": "a", "ctx": 1}, "unknown field `ctx`"),
        ],
        ids=str,
    )
    def test_names_the_field_that_does_not(self, payload, said):
        def work(name: str, home: Address | None = None, ages: list[int] | None = None, small: Annotated[int, msgspec.Meta(le=10)] = 1, ctx: Context = None): ...  # fmt: skip

        with pytest.raises(InvalidPayload, match=f"the payload does not fit it: .*{said}"):
            parameters(work).fit(payload)

    def test_fills_in_the_defaults_and_a_mutable_one_is_the_handlers_own(self):
        box: list = []

        def work(a: int = 1, b: list = box, c: int = None): ...

        fitted = parameters(work).fit({})
        assert fitted == {"a": 1, "b": [], "c": None}
        assert fitted["b"] is box

    def test_an_open_one_keeps_the_rest(self):
        def work(a: int, **rest): ...

        assert parameters(work).fit({"a": 1, "b": 2}) == {"a": 1, "b": 2}
        assert parameters(work).bind((1,), {"b": 2}) == {"a": 1, "b": 2}

    def test_takes_no_account_of_what_a_decorator_hides(self):
        def real(name: str): ...

        @functools.wraps(real)
        def wrapper(*args, **kwargs):
            return real(*args, **kwargs)

        assert parameters(wrapper).fit({"name": "a"}) == {"name": "a"}


class TestSignatures:
    @pytest.mark.parametrize("kind", ["*names", "names, /"])
    def test_that_json_cannot_name_are_refused(self, kind):
        namespace: dict = {}
        exec(f"def work({kind}): ...", namespace)
        with pytest.raises(HandlerError, match="which a JSON object cannot name"):
            parameters(namespace["work"])

    def test_whose_types_cannot_be_found_are_refused(self):
        def work(a: Nowhere): ...  # noqa: F821

        with pytest.raises(HandlerError, match="the handler of 'it' has an annotation that cannot be found: .*Nowhere"):
            parameters(work)

    def test_whose_types_cannot_be_checked_are_refused_at_once_and_not_with_the_first_payload(self):
        def work(a): ...

        work.__annotations__ = {"a": Literal[1.5]}
        with pytest.raises(HandlerError, match="payloads cannot be checked by: Literal may only contain"):
            parameters(work)
