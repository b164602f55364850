"""What users write against: `@job` makes a function the handler of a type, and gives it `enqueue`."""

from __future__ import annotations

import asyncio
import difflib
import importlib
import inspect
import logging
import math
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from .backoff import LONGEST_WAIT, Backoff
from .config import Settings
from .errors import ConfigurationError, DuplicateHandler, HandlerError, InvalidPayload, UnknownJobType
from .jobs import Job, NewJob
from .payloads import Parameters, encode
from .schedules import parse_duration

if TYPE_CHECKING:
    from psycopg import AsyncConnection, Connection

    from .queue import JobId

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")

MAX_ATTEMPTS = 5
NO_MODULES = 'there are none: name your modules in pyproject.toml, [tool.tick] modules = ["jobs"], or in TICK_MODULES'
Duration = str | float | timedelta
ExceptionType = type[BaseException]
T = TypeVar("T")


class Shared:
    """What the coroutine handlers of one tick share: each thing is opened once, and closed when the tick ends."""

    def __init__(self) -> None:
        self._opened: dict[Any, asyncio.Task[Any]] = {}
        self._stack = AsyncExitStack()

    async def get(self, open: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What `open` gives, opened by the first who asks. An opening that failed is tried again by the next."""
        task = self._opened.get(open)
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = self._opened[open] = asyncio.ensure_future(self._stack.enter_async_context(open()))
        # The first who asks may be cancelled, and the others still want it.
        opened: T = await asyncio.shield(task)
        return opened

    async def close(self) -> None:
        """Close everything, the last opened first."""
        for task in self._opened.values():
            task.cancel()
        await self._stack.aclose()


class Context:
    """What a handler may know of its own run, if it takes a `ctx: tick.Context`.

    Attributes:
        id: the job's id: the same for every attempt, so a good idempotency key for what the handler calls.
        type: the job's type.
        attempt: the number of this claim, from 1; it only ever grows.
        schedule: the schedule that made the job, or None.
        window: the instant (UTC) the job is for, when a schedule made it.
        deadline: the instant (UTC, by the database's clock) at which this attempt is stopped.
        cancelled: True once somebody has cancelled the job; a coroutine is cancelled, a plain function may look.
        logger: a logger that carries the job's id, type and attempt.
    """

    __slots__ = ("_job", "_monotonic_deadline", "_registry", "_shared", "cancelled", "deadline", "follow_ups")

    def __init__(
        self, job: Job, deadline: datetime, monotonic_deadline: float, registry: Registry, shared: Shared | None = None
    ) -> None:
        self._shared = shared or Shared()
        self._job = job
        self._monotonic_deadline = monotonic_deadline
        self._registry = registry
        self.deadline = deadline
        self.cancelled = False
        self.follow_ups: list[NewJob] = []

    @property
    def id(self) -> int:
        return self._job.id

    @property
    def type(self) -> str:
        return self._job.type

    @property
    def attempt(self) -> int:
        return self._job.attempt

    @property
    def schedule(self) -> str | None:
        return self._job.schedule

    @property
    def window(self) -> datetime | None:
        return self._job.window

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        known = {"job": self.id, "type": self.type, "attempt": self.attempt}
        return _JobLogger(logging.getLogger(f"tick.job.{self.type}"), known)

    def remaining(self) -> float:
        """Seconds until the deadline; below 0 when it has passed."""
        return self._monotonic_deadline - time.monotonic()

    async def shared(self, open: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What `open` gives, the same for every job of this tick: opened by the first that asks, closed at its end.

        For a client or a connection pool, in a coroutine handler: `client = await ctx.shared(httpx.AsyncClient)`.
        """
        return await self._shared.get(open)

    def enqueue(
        self, target: Handler[..., ..., Any] | str, payload: Mapping[str, Any] | None = None, /, **args: Any
    ) -> None:
        """Enqueue a follow-up that exists exactly if this attempt succeeds: both commit together.

        `target` is a handler, with its arguments by name, or a type, with a payload.
        """
        handler = self._registry.get(target) if isinstance(target, str) else target
        self.follow_ups.append(handler.new_job({**(payload or {}), **args}))


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the job's id and attempt before each message, and on the record as attributes."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        known: Any = self.extra or {}
        message, kwargs = super().process(msg, kwargs)
        return f"[job {known['job']}, attempt {known['attempt']}] {message}", kwargs


@dataclass(frozen=True, slots=True)
class Options:
    """How a job is enqueued. None of them is part of the payload."""

    run_at: datetime | None = None
    delay: Duration | None = None
    priority: int | None = None
    key: str | None = None
    idempotency_key: str | None = None
    max_attempts: int | None = None

    def new_job(self, type: str, payload: bytes, priority: int = 0) -> NewJob:
        """The row that these options and this payload make. Raises InvalidPayload for an option out of bounds."""
        self._check(type)
        return NewJob(
            type=type,
            payload=payload,
            run_at=self.run_at,
            delay=seconds(self.delay) if self.delay else 0.0,
            priority=priority if self.priority is None else self.priority,
            key=self.key,
            idempotency_key=self.idempotency_key,
            max_attempts=self.max_attempts,
        )

    def _check(self, type: str) -> None:
        if self.run_at is not None and not isinstance(self.run_at, datetime):
            raise InvalidPayload(type, f"run_at={self.run_at!r} is not a datetime")
        if self.run_at is not None and self.run_at.tzinfo is None:
            raise InvalidPayload(type, f"run_at={self.run_at} has no time zone; use an aware datetime")
        if self.delay is not None and not abs(seconds(self.delay)) <= LONGEST_WAIT:
            raise InvalidPayload(type, f"delay={self.delay!r} is not a time of up to ten years")
        if self.priority is not None and not -32768 <= self.priority <= 32767:
            raise InvalidPayload(type, f"priority={self.priority} is not from -32768 to 32767")
        if self.max_attempts is not None and not 1 <= self.max_attempts <= 100:
            raise InvalidPayload(type, f"max_attempts={self.max_attempts} is not from 1 to 100")
        for name, key in (("key", self.key), ("idempotency_key", self.idempotency_key)):
            if key is not None and not (isinstance(key, str) and 1 <= len(key.encode()) <= 512 and "\0" not in key):
                raise InvalidPayload(type, f"{name}={key!r} is not a text of 1 to 512 bytes, without NUL")


def seconds(duration: Duration) -> float:
    """Seconds of a number, a timedelta, or a text such as "90s" or "1h30m"."""
    if isinstance(duration, timedelta):
        return duration.total_seconds()
    if isinstance(duration, str):
        return parse_duration(duration).total_seconds()
    return float(duration)


@dataclass(frozen=True)
class Handler(Generic[P, Q, R]):
    """A function that runs a type. Calling it calls it; `enqueue` queues it.

    P are its parameters without the context, Q with it.
    """

    function: Callable[Q, R]
    type: str
    max_attempts: int = MAX_ATTEMPTS
    timeout: float | None = None
    priority: int = 0
    backoff: Backoff = field(default_factory=Backoff)
    permanent_on: tuple[ExceptionType, ...] = ()
    options: Options = field(default_factory=Options)

    def __call__(self, *args: Q.args, **kwargs: Q.kwargs) -> R:
        return self.function(*args, **kwargs)

    @cached_property
    def is_async(self) -> bool:
        """Whether the function is a coroutine function, run on the loop and not in a thread."""
        return inspect.iscoroutinefunction(self.function)

    @cached_property
    def parameters(self) -> Parameters:
        """What a payload must fit."""
        return Parameters(self.function, self.type, Context)

    @property
    def where(self) -> str:
        """The function as module and name, for messages."""
        return f"{self.function.__module__}.{getattr(self.function, '__qualname__', self.function)}"

    @property
    def source(self) -> str:
        """Where the function is written, by file and line: the same after its module was imported again."""
        code = getattr(inspect.unwrap(self.function), "__code__", None)
        return f"{self.where} ({code.co_filename}:{code.co_firstlineno})" if code else self.where

    def using(
        self,
        *,
        run_at: datetime | None = None,
        delay: Duration | None = None,
        priority: int | None = None,
        key: str | None = None,
        idempotency_key: str | None = None,
        max_attempts: int | None = None,
    ) -> Handler[P, Q, R]:
        """A copy that enqueues with these options: `run_at` an aware datetime, `delay` from it or from now."""
        given = {name: value for name, value in locals().items() if name != "self" and value is not None}
        return replace(self, options=replace(self.options, **given))

    def new_job(self, payload: Mapping[str, Any]) -> NewJob:
        """The row for this payload. Raises InvalidPayload when it does not fit the parameters."""
        encoded = encode(self.type, payload)
        self.parameters.fit(_decode(encoded))
        return self.options.new_job(self.type, encoded, self.priority)

    @overload
    def enqueue(self, connection: Connection[Any], /, *args: P.args, **kwargs: P.kwargs) -> JobId: ...
    @overload
    def enqueue(self, connection: AsyncConnection[Any], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[JobId]: ...
    def enqueue(self, connection: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Put a job in, in the connection's own transaction; its id (to be awaited on an async connection).

        Raises InvalidPayload when the arguments do not fit the parameters; nothing is written then.
        """
        from . import queue

        return queue.enqueue(connection, self.new_job(self.parameters.bind(args, kwargs)))


def _decode(encoded: bytes) -> Any:
    import msgspec

    return msgspec.json.decode(encoded)


class Registry:
    """The handlers that a process has, by type."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler[..., ..., Any]] = {}

    def __iter__(self) -> Iterator[Handler[..., ..., Any]]:
        return iter(self._handlers.values())

    def __contains__(self, type: object) -> bool:
        return type in self._handlers

    @property
    def types(self) -> list[str]:
        """The types that have a handler, in order."""
        return sorted(self._handlers)

    def add(self, handler: Handler[..., ..., Any]) -> None:
        """Register a handler. Raises DuplicateHandler when another function has its type."""
        known = self._handlers.get(handler.type)
        if known is not None and known.source != handler.source:
            raise DuplicateHandler(handler.type, known.source, handler.source)
        self._handlers[handler.type] = handler

    def get(self, type: str) -> Handler[..., ..., Any]:
        """The handler of a type. Raises UnknownJobType, with the nearest type."""
        try:
            return self._handlers[type]
        except KeyError:
            if not self._handlers:
                raise UnknownJobType(type, hint=NO_MODULES) from None
            nearest = difflib.get_close_matches(type, self._handlers, 1)
            raise UnknownJobType(type, hint=f"did you mean {nearest[0]!r}?" if nearest else "") from None

    def check(self, budget: float) -> None:
        """Look at every signature and time-out, so that what cannot work is an error at start.

        Raises ConfigurationError with every problem, among them a time-out that no budget can hold.
        """
        problems = []
        for handler in self:
            try:
                handler.parameters.fit  # noqa: B018 - reading it builds the type that payloads are checked against
            except (ConfigurationError, TypeError) as error:
                problems.append(f"{handler.where}: {error}")
            if handler.timeout is not None and handler.timeout > budget - 1:
                problems.append(
                    f"{handler.where}: timeout {handler.timeout:g} s can never fit the budget of {budget:g} s; "
                    "lower it, or raise TICK_BUDGET"
                )
        if problems:
            raise ConfigurationError("\n".join(["handlers that cannot work:", *problems]))


registry = Registry()


@overload
def job(function: Callable[Concatenate[Context, P], R], /) -> Handler[P, Concatenate[Context, P], R]: ...
@overload
def job(function: Callable[P, R], /) -> Handler[P, P, R]: ...
@overload
def job(
    *,
    type: str | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    timeout: Duration | None = None,
    priority: int = 0,
    backoff: Backoff | Sequence[Duration] | None = None,
    permanent_on: Iterable[ExceptionType] | ExceptionType = (),
) -> _Decorator: ...
def job(function: Any = None, /, **options: Any) -> Any:
    """Make a function, plain or a coroutine function, the handler of a type.

    Args:
        function: the handler, when there are no options: `@tick.job`.
        **options: as follows.
        type: the type; the function's name by default.
        max_attempts: failures after which a job is dead, from 1 to 100; 5 by default.
        timeout: how long an attempt may take: "30s", seconds, or a timedelta; what is left of the tick by default.
        priority: of its jobs, when they are enqueued from Python; the higher is run first.
        backoff: a `tick.Backoff`, or a ladder such as ["5s", "1m", "10m"].
        permanent_on: exceptions that bury the job at once.
    """
    if function is None:
        return lambda function: _register(function, **options)
    return _register(function, **options)


class _Decorator:
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> Handler[P, Concatenate[Context, P], R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Handler[P, P, R]: ...
    def __call__(self, function: Any, /) -> Any: ...


def _register(
    function: Callable[..., Any],
    *,
    type: str | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    timeout: Duration | None = None,
    priority: int = 0,
    backoff: Backoff | Sequence[Duration] | None = None,
    permanent_on: Iterable[ExceptionType] | ExceptionType = (),
) -> Handler[..., ..., Any]:
    name = type or getattr(function, "__name__", "")
    if not callable(function) or not name or name == "<lambda>":
        raise HandlerError(f'{function!r} has no name to be a type: @tick.job(type="...")')
    if len(name) > 100 or not name.isprintable():
        raise HandlerError(f"{name!r} cannot be a type: it is more than 100 characters, or not all printable")
    if not 1 <= max_attempts <= 100:
        raise HandlerError(f"{name}: max_attempts={max_attempts} is not from 1 to 100")
    if not -32768 <= priority <= 32767:
        raise HandlerError(f"{name}: priority={priority} is not from -32768 to 32767")
    if timeout is not None and not 0 < seconds(timeout) < math.inf:
        raise HandlerError(f"{name}: timeout={timeout!r} is not a time above 0")
    permanent = (permanent_on,) if isinstance(permanent_on, _TYPE) else tuple(permanent_on)
    if not all(isinstance(each, _TYPE) and issubclass(each, BaseException) for each in permanent):
        raise HandlerError(f"{name}: permanent_on={permanent_on!r} is not exception classes")
    handler: Handler[..., ..., Any] = Handler(
        function=function,
        type=name,
        max_attempts=max_attempts,
        timeout=None if timeout is None else seconds(timeout),
        priority=priority,
        backoff=_backoff(backoff),
        permanent_on=permanent,
    )
    registry.add(handler)
    return handler


_TYPE = type


def _backoff(given: Backoff | Sequence[Duration] | None) -> Backoff:
    if given is None or isinstance(given, Backoff):
        return given or Backoff()
    return Backoff(ladder=tuple(seconds(step) for step in given))


def enqueue(
    connection: Any,
    type: str,
    payload: Mapping[str, Any] | None = None,
    /,
    *,
    run_at: datetime | None = None,
    delay: Duration | None = None,
    priority: int | None = None,
    key: str | None = None,
    idempotency_key: str | None = None,
    max_attempts: int | None = None,
) -> Any:
    """Put a job in by its type's name: its JobId, to be awaited on an async psycopg connection.

    It is part of the connection's own transaction. `delay` counts from `run_at`, or from now; of jobs with one `key`
    at most one runs at a time; a second enqueue with an `idempotency_key` returns the first job's id.
    Raises UnknownJobType or InvalidPayload, and writes nothing then.
    """
    from . import queue

    options = {name: value for name, value in locals().items() if name in Options.__slots__}
    return queue.enqueue(connection, known(type).using(**options).new_job(payload or {}))


def known(type: str) -> Handler[..., ..., Any]:
    """The handler of a type, after the project's modules have been imported, if they had not. Raises UnknownJobType."""
    if type not in registry:
        settings = Settings.load()
        load(settings.modules, settings.root)
    return registry.get(type)


def load(modules: Iterable[str], root: Path) -> Registry:
    """Import the modules, with the project's folder on the path, and return the registry they filled.

    Raises ConfigurationError for one that is missing; an error inside a module is the module's, and passes through.
    """
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    for name in modules:
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not (name == error.name or name.startswith(f"{error.name}.")):
                raise
            raise ConfigurationError(
                f"the module {name!r} of [tool.tick] modules (or TICK_MODULES) cannot be found from {root}"
            ) from None
    return registry
