"""One attempt: a job and its handler in, an outcome out."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import inspect
import os
import queue
import threading
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from itertools import dropwhile
from pathlib import Path
from typing import Any

import msgspec

from .backoff import LONGEST_WAIT
from .errors import ConfigurationError, InvalidPayload, Permanent, Retry, Snooze
from .handlers import Context, Handler, Middleware, current_traceparent
from .jobs import Cancelled, Dead, Done, Failure, Job, Outcome, Released, Retried, Snoozed
from .options import Duration, seconds

LONGEST_MESSAGE = 1000
LONGEST_TRACEBACK = 8000
LONGEST_RESULT = 64 * 1024
LAST_YEAR = 9998
MOST_CUTS = 3
NOTHING = Done()
_OWN = str(Path(__file__).parent) + os.sep


class Threads:
    """Daemon threads for plain functions.

    An executor's threads are joined at exit, so a handler that hangs would keep its process alive for ever.
    """

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._ended: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._telling = False
        self._idle = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[[], Any]) -> Any:
        """Run the function in a thread. When the awaiter is cancelled, the thread is left to itself."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def work() -> None:
            try:
                result, error = context.run(function), None
            except BaseException as raised:  # noqa: BLE001 - whatever it raised is the job's failure, SystemExit too
                result, error = None, raised
            self._ended.append((future, result, error))
            with self._lock:
                self._idle += 1
                tell, self._telling = not self._telling, True
            if tell:
                _call_loop(loop, self._tell)

        with self._lock:
            start = self._idle == 0
            self._idle -= not start
        self._work.put(work)
        if start:
            threading.Thread(target=self._serve, name="tick-handler", daemon=True).start()
        return await future

    def _tell(self) -> None:
        """Resolve what has ended; all of it at once, since to wake the loop costs more than a small function."""
        with self._lock:
            self._telling = False
        while self._ended:
            _resolve(*self._ended.popleft())

    def _serve(self) -> None:
        while True:
            self._work.get()()


def _call_loop(loop: asyncio.AbstractEventLoop, *call: Any) -> None:
    # A closed loop is a tick that is over: nobody waits for this result, and the lease expires.
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(*call)


def _resolve(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if isinstance(error, StopIteration) or (error is not None and not isinstance(error, Exception)):
        # A future refuses a StopIteration; the others end the awaiting task, or the whole loop.
        error = _Raised(error)
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)


class _Raised(Exception):
    """Carries an exception that a future cannot."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(_repr(error))
        self.error = error


async def run(
    job: Job,
    handler: Handler[..., ..., Any],
    context: Context,
    threads: Threads,
    middleware: Sequence[Middleware] = (),
) -> Outcome:
    """Call the handler, inside the middleware, and say how it ended. Only being cancelled from outside is raised."""
    token = current_traceparent.set(job.traceparent) if job.traceparent else None
    try:
        if middleware:
            returned = await _inside(middleware, context, lambda: _call(job, handler, context, threads))
        else:
            returned = await _call(job, handler, context, threads)
    except BaseException as error:
        if isinstance(error, asyncio.CancelledError) and _is_being_cancelled():
            raise
        return failed(job, handler, error.error if isinstance(error, _Raised) else error)
    finally:
        if token:
            current_traceparent.reset(token)
    if returned is None and not context.follow_ups:
        return NOTHING
    return Done(_result(returned), context.follow_ups)


async def _call(job: Job, handler: Handler[..., ..., Any], context: Context, threads: Threads) -> Any:
    arguments = handler.parameters.read(job.payload)
    if handler.parameters.context is not None:
        arguments[handler.parameters.context] = context
    if handler.is_async:
        returned = await handler.function(**arguments)
    else:
        returned = await threads.run(lambda: handler.function(**arguments))
    # A plain function may wrap a coroutine function, and a coroutine function another. Most return nothing.
    return await returned if returned is not None and inspect.isawaitable(returned) else returned


async def _inside(middleware: Sequence[Middleware], context: Context, call: Callable[[], Awaitable[Any]]) -> Any:
    """The call, inside of each middleware in turn."""
    if not middleware:
        return await call()
    return await middleware[0].run(context, lambda: _inside(middleware[1:], context, call))


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def failed(job: Job, handler: Handler[..., ..., Any], error: BaseException) -> Outcome:
    """What an exception means: a snooze, a retry, or death."""
    try:
        delay = wait(getattr(error, "after", None)) if isinstance(error, Snooze | Retry) else None
    except (ConfigurationError, TypeError, ValueError) as unusable:
        return failed(job, handler, unusable)
    if isinstance(error, Snooze) and error.until is not None and error.until.year > LAST_YEAR:
        return failed(job, handler, ValueError(f"until={error.until} is past the year {LAST_YEAR}"))
    if isinstance(error, Snooze):
        return Snoozed(error.until, delay or 0.0)
    failure = Failure(describe(error), trace(error))
    failures = job.failures + 1
    if isinstance(error, (Permanent, InvalidPayload, *handler.permanent_on)):
        return Dead(failure)
    if failures >= (job.max_attempts or handler.max_attempts):
        return Dead(failure)
    return Retried(handler.backoff.delay(failures, job.id) if delay is None else delay, failure)


def wait(after: Duration | None) -> float | None:
    """Seconds that a handler asked to wait. Raises ConfigurationError, TypeError or ValueError for what is none.

    One timestamp that Postgres cannot hold would fail the whole exchange, and the outcomes of the neighbours with it.
    """
    if after is None:
        return None
    delay = seconds(after)
    if not 0 <= delay <= LONGEST_WAIT:
        raise ValueError(f"after={after!r} is no wait: it must be from 0 seconds to ten years")
    return delay


def stopped(job: Job, handler: Handler[..., ..., Any], why: str, after: float) -> Outcome:
    """What it means that the tick ended the attempt `after` so many seconds.

    Its own time-out is a failure. The tick's deadline is not, until it has happened so often that the job
    seems to fit no tick at all.
    """
    if why == "cancel":
        return Cancelled()
    if why == "timeout":
        return failed(job, handler, TimeoutError(f"timed out: it ran for {after:.1f} s"))
    if why == "deadline" and job.cuts + 1 >= MOST_CUTS:
        text = (
            f"cut short by the deadline of its tick {MOST_CUTS} times, now after {after:.1f} s: "
            "it does not fit the budget; split it, give it a timeout, or raise TICK_BUDGET"
        )
        return failed(job, handler, TimeoutError(text))
    return Released(cut=why == "deadline")


def _result(returned: Any) -> bytes | None:
    """The result as JSON. The work is done, so a result that cannot be stored is no failure: its repr is kept."""
    if returned is None:
        return None
    try:
        encoded = msgspec.json.encode(returned)
    except Exception as error:  # noqa: BLE001 - any object may be returned, and encoding it may raise anything
        return msgspec.json.encode({"unserialisable": _safe(_repr(returned)), "error": describe(error)})
    if len(encoded) > LONGEST_RESULT or b"\\u0000" in encoded:
        return msgspec.json.encode({"unserialisable": _safe(_repr(returned)), "bytes": len(encoded)})
    return encoded


def _repr(value: Any) -> str:
    try:
        return repr(value)[:200]
    except Exception as error:  # noqa: BLE001 - a __repr__ may raise anything
        return f"<{type(value).__name__}: repr failed: {type(error).__name__}>"


def _safe(text: str) -> str:
    """Text that Postgres can store: no NUL, no lone surrogate."""
    return text.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode()


def describe(error: BaseException) -> str:
    """An exception in one bounded, storable line: its type and message."""
    try:
        message = " ".join(str(error).split())
    except Exception as broken:  # noqa: BLE001 - a __str__ may raise anything
        message = f"<str failed: {type(broken).__name__}>"
    name = type(error).__name__
    return _safe(f"{name}: {message}" if message else name)[:LONGEST_MESSAGE]


def trace(error: BaseException) -> str:
    """The traceback from the handler on, of causes too, cut in the middle to 8,000 characters, and storable."""
    try:
        told = traceback.TracebackException.from_exception(error, compact=True)
        _leave_out_own_frames(told)
        text = _safe("".join(told.format()))
    except Exception as broken:  # noqa: BLE001 - formatting calls the exception's own methods
        return f"the traceback cannot be formatted: {type(broken).__name__}"
    if len(text) <= LONGEST_TRACEBACK:
        return text
    half = LONGEST_TRACEBACK // 2 - 20
    return f"{text[:half]}\n... {len(text) - 2 * half} characters ...\n{text[-half:]}"


def _leave_out_own_frames(told: traceback.TracebackException) -> None:
    """Begin with the first frame that is not of tick, where there is one, and so in whatever the exception tells of."""
    unseen: list[traceback.TracebackException | None] = [told]
    while unseen:
        if part := unseen.pop():
            frames = list(dropwhile(lambda frame: frame.filename.startswith(_OWN), part.stack))
            part.stack = traceback.StackSummary.from_list(frames or part.stack)
            unseen += [part.__cause__, part.__context__, *(part.exceptions or ())]
