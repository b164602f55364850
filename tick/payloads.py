"""A payload at the door: JSON that Postgres can hold, and that fits the parameters of its handler."""

from __future__ import annotations

import inspect
import math
import re
import typing
from collections.abc import Callable, Mapping
from types import NoneType
from typing import Any

import msgspec

from .errors import HandlerError, InvalidPayload

MOST_BYTES = 64 * 1024
MOST_DEPTH = 32
_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
_SCALARS = frozenset({str, int, bool, NoneType})


def encode(type: str, payload: Mapping[str, Any]) -> bytes:
    """The payload as JSON. Raises InvalidPayload for what jsonb cannot hold or should not have to."""
    try:
        if is_flat(payload):
            encoded = msgspec.json.encode(dict(payload))
        else:
            plain = msgspec.to_builtins(dict(payload), enc_hook=_plain)
            encoded = msgspec.json.encode(plain)
            _check_values(plain, depth=0)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidPayload(type, f"it cannot be written as JSON: {error}") from None
    if len(encoded) > MOST_BYTES:
        raise InvalidPayload(
            type,
            f"it is {len(encoded):,} bytes of JSON, of {MOST_BYTES:,} at most; store the data, and pass its id",
        )
    if b"\\u0000" in encoded and _NUL.search(encoded):
        raise InvalidPayload(type, "it holds a NUL character, which Postgres cannot store")
    return encoded


def is_flat(payload: Mapping[str, Any]) -> bool:
    """Whether it holds nothing but texts, whole numbers, truths and nulls, as most do: JSON gives it back as it was."""
    return all(value.__class__ in _SCALARS for value in payload.values()) and all(type(name) is str for name in payload)


def _plain(value: Any) -> Any:
    """A subclass of int as the number it is, such as the id of another job."""
    if isinstance(value, int):
        return int(value)
    raise TypeError(f"{type(value).__name__} has no form in JSON")


def _check_values(value: Any, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise ValueError(f"it is nested deeper than {MOST_DEPTH} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a JSON number")
    if isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            _check_values(item, depth + 1)


class Parameters:
    """What a handler takes: its signature as a type that payloads are checked against.

    The context is the parameter annotated `tick.Context`, or named `ctx`; it is not part of a payload.
    """

    def __init__(self, function: Callable[..., Any], type: str, context: Any) -> None:
        self.type = type
        signature = inspect.signature(function)
        hints = _hints(function, type)
        self.context = _context_parameter(signature, hints, context)
        given = {n: p for n, p in signature.parameters.items() if n != self.context}
        self.open = any(p.kind is p.VAR_KEYWORD for p in given.values())
        self.signature = signature.replace(parameters=list(given.values()))
        self._shape = msgspec.defstruct(
            f"{type} payload",
            [_field(type, name, p, hints) for name, p in given.items() if p.kind is not p.VAR_KEYWORD],
            kw_only=True,
            forbid_unknown_fields=not self.open,
        )
        self._allowed = frozenset(self._shape.__struct_fields__)
        self._required = frozenset(n for n in self._allowed if given[n].default is inspect.Parameter.empty)
        self._decoder = _decoder(self._shape, type)

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """The payload of a call with these arguments. Raises InvalidPayload as the call would TypeError."""
        # By name and without a default left out, as nearly all are called: a sixth of what inspect takes.
        if not args and not self.open and self._required <= kwargs.keys() <= self._allowed:
            return kwargs
        try:
            bound = self.signature.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise InvalidPayload(self.type, str(error)) from None
        rest = next((n for n, p in self.signature.parameters.items() if p.kind is p.VAR_KEYWORD), None)
        extra = bound.pop(rest, {}) if rest else {}
        return {**bound, **extra}

    def read(self, payload: str | bytes) -> dict[str, Any]:
        """The arguments for the handler, converted to its annotations, from JSON.

        Raises InvalidPayload naming the field, also for what cannot be decoded (1e5000, a nest of thousands).
        """
        try:
            arguments = msgspec.structs.asdict(self._decoder.decode(payload))
            rest = msgspec.json.decode(payload) if self.open else {}
        except (msgspec.DecodeError, RecursionError, ValueError) as error:
            raise InvalidPayload(self.type, str(error)) from None
        return {**rest, **arguments}

    def fit(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """The same of a payload that has been decoded."""
        return self.read(msgspec.json.encode(payload))


def _decoder(shape: Any, type: str) -> msgspec.json.Decoder[Any]:
    """What reads such payloads; made now, or an annotation that it cannot check would be found with the first."""
    try:
        return msgspec.json.Decoder(shape)
    except TypeError as error:
        raise HandlerError(
            f"the handler of {type!r} has an annotation that payloads cannot be checked by: {error}"
        ) from None


def _hints(function: Callable[..., Any], type: str) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception as error:  # noqa: BLE001 - an annotation is an expression, and may raise anything
        raise HandlerError(f"the handler of {type!r} has an annotation that cannot be found: {error}") from None


def _context_parameter(signature: inspect.Signature, hints: dict[str, Any], context: Any) -> str | None:
    annotated = [name for name in signature.parameters if hints.get(name) is context]
    return next(iter(annotated), "ctx" if "ctx" in signature.parameters else None)


def _field(type: str, name: str, parameter: inspect.Parameter, hints: dict[str, Any]) -> Any:
    if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.VAR_POSITIONAL):
        raise HandlerError(
            f"the handler of {type!r} takes {parameter}, which a JSON object cannot name; give it a plain parameter"
        )
    annotation = hints.get(name, Any)
    if parameter.default is parameter.empty:
        return (name, annotation)
    # A mutable default is the handler's own affair, as in any call; msgspec would refuse it.
    return (name, annotation, msgspec.field(default_factory=lambda: parameter.default))
