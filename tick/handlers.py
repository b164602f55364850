"""What users write against: `@job` makes a function the handler of a type, and gives it `enqueue`."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import logging
import math
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, TypeVar, Unpack, overload

import msgspec

from .backoff import Backoff
from .config import Settings
from .errors import ConfigurationError, DuplicateHandler, HandlerError, InvalidPayload, TickError, UnknownJobType
from .jobs import Job, NewJob
from .limits import Limit, Rate, check_concurrency, parse_rate
from .options import KEY_ORDERS, Duration, Given, Options, seconds
from .payloads import Parameters, encode

if TYPE_CHECKING:
    from .connections import Awaited, Blocking
    from .intake import Ended, JobId

P = ParamSpec("P")
Q = ParamSpec("Q")
R = TypeVar("R")

MAX_ATTEMPTS = 5
NO_MODULES = 'there are none: name your modules in pyproject.toml, [tool.tick] modules = ["jobs"], or in TICK_MODULES'
_INSTALLED = {".venv", "venv", "site-packages"}
BUILT_IN = {"http": "http_job", "sql": "sql_job", "tick.alert": "alert_job", "tick.callback": "http_job"}
"""The types of this package, and the module of each, imported when the handler is first asked for."""
ExceptionType = type[BaseException]
T = TypeVar("T")

current_traceparent: ContextVar[str | None] = ContextVar("tick_traceparent", default=None)
"""The trace of the job or request that is being served: what it enqueues belongs to it."""


class Shared:
    """What the coroutine handlers of one tick share: each thing is opened once, and closed when the tick ends."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._opened: dict[Any, asyncio.Task[Any]] = {}
        self._stack = AsyncExitStack()

    async def get(self, open: Callable[..., AbstractAsyncContextManager[T]], *args: Hashable) -> T:
        """What `open(*args)` gives, opened by the first who asks. An opening that failed is tried by the next."""
        task = self._opened.get((open, args))
        if task is None or (task.done() and (task.cancelled() or task.exception())):
            task = asyncio.ensure_future(self._stack.enter_async_context(open(*args)))
            self._opened[open, args] = task
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
        key: the job's key, or None.
        settings: how this tick was configured: where its database is, what it may call.
        traceparent: the trace that it was enqueued in, or the attempt's own span where OpenTelemetry is told of it, as
            W3C Trace Context writes it; or None.
        logger: a logger that carries the job's id, type and attempt.
    """

    __slots__ = (
        "_job", "_monotonic_deadline", "_registry", "_shared", "cancelled", "deadline", "follow_ups", "said",
    )  # fmt: skip

    def __init__(
        self, job: Job, deadline: datetime, monotonic_deadline: float, registry: Registry, shared: Shared | None = None
    ) -> None:
        self._job = job
        self._monotonic_deadline = monotonic_deadline
        self._registry = registry
        self._shared = shared or Shared()
        self.deadline = deadline
        self.cancelled = False
        self.follow_ups: list[NewJob] = []
        self.said: bytes | None = None

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
    def key(self) -> str | None:
        return self._job.key

    @property
    def settings(self) -> Settings:
        return self._shared.settings

    @property
    def traceparent(self) -> str | None:
        return self._job.traceparent

    @property
    def parent(self) -> dict[str, Any] | None:
        """How the job that this one came after has ended: id, type, status, attempt, result, finished_at."""
        return (self._job.inputs or {}).get("parent")

    @property
    def members(self) -> list[dict[str, Any]]:
        """How the jobs of the group that this one ends have ended, each with id, type, status, and result or error.

        Results are there as long as all of them fit 256 KiB.
        """
        jobs: list[dict[str, Any]] = (self._job.inputs or {}).get("jobs", [])
        return jobs

    @property
    def logger(self) -> logging.LoggerAdapter[logging.Logger]:
        known = {"job": self.id, "type": self.type, "attempt": self.attempt}
        return _JobLogger(logging.getLogger(f"tick.job.{self.type}"), known)

    def remaining(self) -> float:
        """Seconds until the deadline; below 0 when it has passed."""
        return self._monotonic_deadline - time.monotonic()

    async def shared(self, open: Callable[..., AbstractAsyncContextManager[T]], *args: Hashable) -> T:
        """What `open(*args)` gives, the same for every job of this tick: opened by the first, closed at its end.

        For a client or a connection pool, in a coroutine handler: `client = await ctx.shared(httpx.AsyncClient)`.
        """
        return await self._shared.get(open, *args)

    def enqueue(
        self,
        target: Handler[..., ..., Any] | NewJob | str,
        payload: Mapping[str, Any] | None = None,
        /,
        **args: Any,
    ) -> None:
        """Enqueue a follow-up that exists exactly if this attempt succeeds: both commit together.

        `target` is a handler, with its arguments by name, a type, with a payload, or a job to be (`handler.of(...)`).
        """
        if not isinstance(target, NewJob):
            handler = self._registry.get(target) if isinstance(target, str) else target
            target = handler.prepared({**(payload or {}), **args})
        self.follow_ups.append(target)

    def progress(self, done: float, total: float | None = None, note: str = "") -> None:
        """Say how far this attempt is. It is written with the tick's next exchange, a few seconds later at most.

        Of a note the first 500 characters are kept. Raises TypeError for what is no number, where one should be.
        """
        for number in (done, total):
            if not isinstance(number, int | float | None):
                raise TypeError(f"{number!r:.100} is not a number: how much is done, and of how much")
        # What Postgres cannot hold is replaced: the work is worth more than the word about it.
        storable = note[:500].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
        self.said = msgspec.json.encode({"done": done, "total": total, "note": storable})


class _JobLogger(logging.LoggerAdapter[logging.Logger]):
    """Puts the job's id and attempt before each message, and on the record as attributes."""

    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        known: Any = self.extra or {}
        message, kwargs = super().process(msg, kwargs)
        return f"[job {known['job']}, attempt {known['attempt']}] {message}", kwargs


class Middleware:
    """What surrounds every enqueue and every run of this process: for tracing, tenancy, error trackers.

    Override what you need, and register an instance with `tick.use`. The first registered is the outermost.
    """

    def enqueue(self, job: NewJob) -> NewJob:
        """The job to put in instead, such as `job._replace(traceparent=...)`. Called before it is written."""
        return job

    async def run(self, ctx: Context, call: Callable[[], Awaitable[Any]]) -> Any:  # noqa: ARG002 - for those who override it
        """Run the handler by `await call()`, and return what it returned; what it raises passes through."""
        return await call()


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
    key_order: str = "loose"
    concurrency: int | None = None
    rate: Rate | None = None
    rate_per_key: Rate | None = None
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

    @property
    def limit(self) -> Limit | None:
        """How many of its jobs may run or start, if that is limited."""
        if not (self.concurrency or self.rate or self.rate_per_key):
            return None
        return Limit(type=self.type, concurrency=self.concurrency, rate=self.rate, rate_per_key=self.rate_per_key)

    def using(self, **options: Unpack[Given]) -> Handler[P, Q, R]:
        """A copy that enqueues with these options: `tick.Options` tells what each of them does."""
        return replace(self, options=replace(self.options, **options))

    def of(self, /, *args: P.args, **kwargs: P.kwargs) -> NewJob:
        """A job to be, with these arguments: for `tick.enqueue_many`, `tick.group`, `then=` and `ctx.enqueue`.

        Raises InvalidPayload when the arguments do not fit the parameters.
        """
        return self.prepared(self.parameters.bind(args, kwargs))

    def prepared(self, payload: Mapping[str, Any]) -> NewJob:
        """The job to be, as the middleware and the running trace leave it."""
        new = self.new_job(payload)
        if new.traceparent is None and (traceparent := current_traceparent.get()):
            new = new._replace(traceparent=traceparent)
        for middleware in registry.middleware:
            new = middleware.enqueue(new)
        return new

    def new_job(self, payload: Mapping[str, Any]) -> NewJob:
        """The row for this payload. Raises InvalidPayload when it does not fit the parameters."""
        encoded = encode(self.type, payload)
        self.parameters.read(encoded)
        return NewJob(self.type, encoded, *self._given)

    @cached_property
    def _given(self) -> tuple[Any, ...]:
        """The row after its type and payload. Raises InvalidPayload for options that are out of bounds."""
        return self.options.new_job(self.type, b"{}", self.priority, self.key_order == "strict" or None)[2:]

    @overload
    def enqueue(self, connection: Blocking, /, *args: P.args, **kwargs: P.kwargs) -> JobId: ...
    @overload
    def enqueue(self, connection: Awaited, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[JobId]: ...
    def enqueue(self, connection: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Put a job in, in the connection's own transaction; its id (to be awaited on an async connection).

        Raises InvalidPayload when the arguments do not fit the parameters; nothing is written then.
        """
        from . import intake

        return intake.enqueue(connection, self.of(*args, **kwargs))


class Registry:
    """The handlers that a process has, by type; of those that are not imported yet, the module."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler[..., ..., Any] | str] = {}
        self.middleware: list[Middleware] = []

    def __iter__(self) -> Iterator[Handler[..., ..., Any]]:
        return iter([self._brought(type) for type in list(self._handlers)])

    def __contains__(self, type: object) -> bool:
        return type in self._handlers

    @property
    def types(self) -> list[str]:
        """The types that have a handler, in order."""
        return sorted(self._handlers)

    @property
    def limits(self) -> list[Limit]:
        """The limits that handlers have."""
        return [limit for handler in self._imported if (limit := handler.limit)]

    @property
    def defaults(self) -> list[dict[str, Any]]:
        """What handlers say of their jobs, for producers that do not have them: rows of `tick.defaults`."""
        return [
            {"type": handler.type, "priority": handler.priority, "strict_key": handler.key_order == "strict"}
            for handler in self._imported
            if handler.priority or handler.key_order == "strict"
        ]

    @property
    def _imported(self) -> list[Handler[..., ..., Any]]:
        """All but the built-in ones that nobody has asked for: those have no limits, no defaults and no time-outs."""
        return [handler for handler in self._handlers.values() if isinstance(handler, Handler)]

    def add(self, handler: Handler[..., ..., Any]) -> None:
        """Register a handler. Raises DuplicateHandler when another function has its type."""
        known = self._handlers.get(handler.type, handler)
        if known != handler.function.__module__:
            source = (known if isinstance(known, Handler) else self._brought(handler.type)).source
            if source != handler.source:
                raise DuplicateHandler(handler.type, source, handler.source)
        self._handlers[handler.type] = handler

    def add_later(self, type: str, module: str) -> None:
        """Register the handler that this module adds when it is imported, unless it has been.

        Raises DuplicateHandler when another function has its type.
        """
        known = self._handlers.get(type)
        if isinstance(known, Handler) and known.function.__module__ != module:
            raise DuplicateHandler(type, known.source, module)
        if module not in sys.modules:
            self._handlers.setdefault(type, module)

    def _brought(self, type: str) -> Handler[..., ..., Any]:
        """The handler of a known type, its module imported."""
        handler = self._handlers[type]
        if isinstance(handler, str):
            importlib.import_module(handler)
            return self._brought(type)
        return handler

    def get(self, type: str) -> Handler[..., ..., Any]:
        """The handler of a type. Raises UnknownJobType, with the nearest type."""
        if type in self._handlers:
            return self._brought(type)
        if not self._handlers:
            raise UnknownJobType(type, hint=NO_MODULES)
        from difflib import get_close_matches

        nearest = get_close_matches(type, self._handlers, 1)
        raise UnknownJobType(type, hint=f"did you mean {nearest[0]!r}?" if nearest else "")

    def timeout(self, type: str) -> float | None:
        """How long an attempt of a known type may take, in seconds, if its handler says so."""
        handler = self._handlers[type]
        return handler.timeout if isinstance(handler, Handler) else None

    def check(self, budget: float) -> None:
        """Look at every signature and time-out, so that what cannot work is an error at start.

        Raises ConfigurationError with every problem, among them a time-out that no budget can hold.
        """
        problems = []
        for handler in self._imported:
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
    key_order: str = "loose",
    concurrency: int | None = None,
    rate: str | None = None,
    rate_per_key: str | None = None,
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
        key_order: "strict" lets a job that is retried go before the others of its key; "loose" lets them pass.
        concurrency: how many of its jobs run at once, in all ticks together.
        rate: how many of them start in any such period: "100/minute", "5/10s".
        rate_per_key: the same, for each key by itself.
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
    key_order: str = "loose",
    concurrency: int | None = None,
    rate: str | None = None,
    rate_per_key: str | None = None,
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
        **_flow(name, key_order, concurrency, rate, rate_per_key),
    )
    registry.add(handler)
    return handler


_TYPE = type


def _flow(type: str, key_order: str, concurrency: Any, rate: Any, rate_per_key: Any) -> dict[str, Any]:
    if key_order not in KEY_ORDERS:
        raise HandlerError(f"{type}: key_order={key_order!r} is not loose or strict")
    try:
        return {
            "key_order": key_order,
            "concurrency": None if concurrency is None else check_concurrency(concurrency),
            "rate": None if rate is None else parse_rate(rate),
            "rate_per_key": None if rate_per_key is None else parse_rate(rate_per_key),
        }
    except ConfigurationError as error:
        raise HandlerError(f"{type}: {error}") from None


def _backoff(given: Backoff | Sequence[Duration] | None) -> Backoff:
    if given is None or isinstance(given, Backoff):
        return given or Backoff()
    return Backoff(ladder=tuple(seconds(step) for step in given))


def enqueue(connection: Any, type: str, payload: Mapping[str, Any] | None = None, /, **options: Unpack[Given]) -> Any:
    """Put a job in by its type's name: its JobId, to be awaited when the connection is an async one.

    It is part of the connection's own transaction: psycopg's, SQLAlchemy's or Django's. `tick.Options` tells what the
    options do. Raises UnknownJobType or InvalidPayload, and writes nothing then.
    """
    from . import intake

    return intake.enqueue(connection, of(type, payload, **options))


def enqueue_many(connection: Any, jobs: Iterable[NewJob]) -> Any:
    """Put many jobs in with one statement: their JobIds in the same order, to be awaited on an async connection.

    The jobs are what `handler.of(...)` and `tick.of(type, payload)` make, of any types.
    """
    from . import intake

    return intake.enqueue_many(connection, _jobs_to_be(jobs))


def group(connection: Any, jobs: Iterable[NewJob], then: NewJob) -> Any:
    """Put jobs in that may run beside each other, and one that runs when all have ended: its JobId, then theirs.

    To be awaited on an async connection. The last one is told in `ctx.members` how each ended: done, dead or
    cancelled. Cancelling it cancels those that have not started.
    """
    from . import intake

    news, (last,) = _jobs_to_be(jobs), _jobs_to_be([then])
    for new in news:
        if new.idempotency_key is not None or new.throttle is not None:
            why = "a job of a group is always a new one: give the idempotency_key or throttle to the job at its end"
            raise InvalidPayload(new.type, why)
    return intake.enqueue_group(connection, news, last)


def _jobs_to_be(jobs: Iterable[Any]) -> list[NewJob]:
    """The jobs as a list. Raises TypeError for what is none."""
    listed = list(jobs)
    for each in listed:
        if not isinstance(each, NewJob):
            raise TypeError(f"{each!r:.100} is not a job to be: write handler.of(...) or tick.of(type, payload)")
    return listed


def of(type: str, payload: Mapping[str, Any] | None = None, /, **options: Unpack[Given]) -> NewJob:
    """A job to be, by its type's name. Raises UnknownJobType or InvalidPayload."""
    return known(type).using(**options).prepared(payload or {})


async def wait(connection: Any, id: int, timeout: Duration = 60.0) -> Ended:  # noqa: ASYNC109 - it polls, and cancels nothing
    """Wait until a job has ended: its status, its result, its last error. For scripts and tests.

    Raises TimeoutError when it has not after `timeout`, and JobNotFound when there is none.
    """
    from . import intake

    return await intake.wait(connection, id, seconds(timeout))


def use(middleware: Middleware) -> None:
    """Have a middleware around every enqueue and every run of this process, inside of those that are there already."""
    if not isinstance(middleware, Middleware):
        raise TypeError(f"{middleware!r:.100} is not an instance of a subclass of tick.Middleware")
    registry.middleware.append(middleware)


def known(type: str) -> Handler[..., ..., Any]:
    """The handler of a type, after the project's modules have been imported, if they had not. Raises UnknownJobType."""
    if type not in registry:
        settings = Settings.load()
        load(settings.modules, settings.root)
    return registry.get(type)


def load(modules: Iterable[str], root: Path) -> Registry:
    """Import the modules, with the project's folder on the path, and return the registry they filled.

    Raises ConfigurationError for one that is missing, and for one that cannot be imported, with the place of its error.
    """
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    for type, name in BUILT_IN.items():
        registry.add_later(type, f"{__package__}.{name}")
    for name in modules:
        try:
            importlib.import_module(name)
        except TickError:
            raise
        except (Exception, SystemExit) as error:
            raise ConfigurationError(_why_not_loaded(name, root, error)) from error
    return registry


def _why_not_loaded(name: str, root: Path, error: BaseException) -> str:
    """That a module is not there; or what it raised, and on which line of the project."""
    missing = error.name if isinstance(error, ModuleNotFoundError) else None
    if missing and (name == missing or name.startswith(f"{missing}.")):
        return f"the module {name!r} of [tool.tick] modules (or TICK_MODULES) cannot be found from {root}"
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return f"{_place_in(root, error)}{said} (module `{name}` of [tool.tick] modules or TICK_MODULES)"


def _place_in(root: Path, error: BaseException) -> str:
    """The innermost line of the project's own files at which it was raised, as `file:line: `; else nothing."""
    lines = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, SyntaxError) and error.filename:
        lines.append((error.filename, error.lineno or 1))
    for file, line in reversed(lines):
        path = Path(file)
        if path.is_relative_to(root) and not _INSTALLED.intersection(path.relative_to(root).parts):
            return f"{path.relative_to(root)}:{line}: "
    return ""
