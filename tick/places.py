"""Where a tick's jobs run: a few places at once, each with a time by which it is free again."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from . import logs, runner
from .config import DEFAULT_BUDGET, Settings
from .handlers import Context, Handler, Registry, Shared
from .history import Durations, Tally
from .jobs import Cancelled, Dead, Done, Failure, Job, Outcome, Released, Retried

if TYPE_CHECKING:
    from opentelemetry.trace import Span

    from .telemetry import Tracing

FLOOR = 1.0
"""Seconds that a type without a time-out or a history is taken to need."""
STUBBORN = 0.75
"""Seconds that a cancelled handler has to end, before it is abandoned."""
YIELD = 0.002
"""Seconds of back-to-back handlers after which the loop gets a turn."""

logger = logging.getLogger("tick")

_COUNTS_AS = {Done: "done", Retried: "retried", Dead: "dead"}

_abandoned: set[asyncio.Task[None]] = set()
"""Handlers that did not stop: referred to here, since a loop holds its tasks only weakly."""


class Clock:
    """How much of the budget is used, by this process's clock; and what the database's clock says meanwhile."""

    def __init__(self, started: float, budget: float) -> None:
        self.started = started
        self.budget = budget
        self.deadline = started + budget
        self._began = self._ends = datetime.min.replace(tzinfo=UTC)

    def elapsed(self) -> float:
        return time.monotonic() - self.started

    def remaining(self) -> float:
        return self.deadline - time.monotonic()

    def set(self, now: datetime, at: float) -> None:
        """The database said `now` in answer to a question asked `at` that time of this process."""
        self._began = now - timedelta(seconds=at - self.started)
        self._ends = self._began + timedelta(seconds=self.budget)

    def instant(self, at: float) -> datetime:
        """A time of this process, as the database's clock shows it (UTC)."""
        # Most jobs may run until the tick ends.
        return self._ends if at == self.deadline else self._began + timedelta(seconds=at - self.started)

    def since(self, instant: datetime, at: float) -> float:
        """Seconds from an instant of the database to a time of this process; 0 when that comes first."""
        return max(0.0, (self._began - instant).total_seconds() + at - self.started)


class Stop:
    """Ends a tick early: no more claims, what has not started is released, what runs gets the grace."""

    def __init__(self) -> None:
        self.asked_at: float | None = None
        self._wake: Callable[[], None] = lambda: None

    def __call__(self) -> None:
        self.asked_at = self.asked_at or time.monotonic()
        self._wake()

    def wakes(self, wake: Callable[[], None], loop: asyncio.AbstractEventLoop) -> None:
        """Have this called, in its loop, when the stop is asked for: by whatever thread."""

        def call() -> None:
            with contextlib.suppress(RuntimeError):  # The loop is closed: the tick is over.
                loop.call_soon_threadsafe(wake)

        self._wake = call


class Place:
    """The job that runs here, until when it may, and since when it has been told to stop."""

    __slots__ = ("context", "cut_at", "ends_at", "job", "span", "started", "task", "why")

    def __init__(self) -> None:
        self.job: Job | None = None
        self.task: asyncio.Task[None] | None = None
        self.context: Context | None = None
        self.span: Span | None = None
        self.started = self.ends_at = 0.0
        self.cut_at: float | None = None
        self.why = "deadline"

    def cut(self, why: str) -> None:
        """Tell the handler to stop; what it makes of that is seen when its task ends, or does not."""
        if self.cut_at is None and self.task is not None:
            self.why, self.cut_at = why, time.monotonic()
            self.task.cancel()

    def next_event(self) -> float:
        """When something has to be done about it."""
        return self.ends_at if self.cut_at is None else self.cut_at + STUBBORN


def _forget_cancellation(task: asyncio.Task[None] | None) -> None:
    """Let the next job of this task not be taken for one that is being cancelled; a handler may have swallowed it."""
    while task is not None and task.cancelling():
        task.uncancel()


class Places:
    """Takes claimed jobs from its buffer, runs them, and collects their outcomes."""

    def __init__(self, settings: Settings, clock: Clock, registry: Registry, stop: Stop, lines: logs.Lines) -> None:
        self.lines = lines
        self.tracing: Tracing | None = None
        self.settings = settings
        self.concurrency = settings.concurrency
        self.clock = clock
        self.registry = registry
        self.stop = stop
        self.buffer: deque[Job] = deque()
        self.low_water = 0
        self.longest = max(clock.budget, settings.budget or DEFAULT_BUDGET) - 1
        """What a job can need at most. One with a longer time-out starts in a fresh tick, and is cut when that ends."""
        self.start_by: dict[int, float] = {}
        """Until when the held jobs under a limit may start: a rate counts claims, and starts follow closely."""
        self.running: set[Place] = set()
        self.outcomes: list[tuple[Job, Outcome]] = []
        self.last_words: list[tuple[Job, bytes]] = []
        """What handlers said of their progress before they ended, and nobody has taken yet."""
        self.last_outcome = clock.started
        self.unlocked = False
        """Whether an outcome makes another job claimable: the next of its key or lane, or what follows from it."""
        self.abandoned: list[int] = []
        self.suspect_abandoned = False
        """Whether one of the handlers that have not stopped is a suspect's: beside it nothing else may run."""
        self.overdue: list[tuple[Job, Outcome]] = []
        """Outcomes of handlers that have not stopped: kept back until the tick ends, and with them their leases."""
        self.durations = Durations({})
        self.tally = Tally()
        self.wake = asyncio.Event()
        self.shared = Shared(settings)
        self._needs: dict[str, float] = {}
        self._threads = runner.Threads()
        self._blank = contextvars.copy_context()

    def learn(self, history: dict[str, list[int]]) -> None:
        """What earlier ticks know of how long types take."""
        self.durations = Durations(history)
        self._needs.clear()

    def over(self) -> bool:
        """Whether nothing more may be started."""
        return self.stop.asked_at is not None or self.clock.remaining() <= 0

    def free(self) -> int:
        """How many jobs could start at once, beside those that are held."""
        return max(0, self.concurrency - len(self.running) - len(self.buffer))

    def idle(self) -> bool:
        return not self.running and not self.buffer

    def busy(self) -> bool:
        """Whether a job runs: a place may have done its last one, and not had its turn to be gone."""
        return any(place.job for place in self.running)

    def held(self) -> list[int]:
        """The ids of the claims that are not settled yet, and not among the outcomes."""
        running = [place.job.id for place in self.running if place.job]
        overdue = [job.id for job, _ in self.overdue]
        return [*running, *(job.id for job in self.buffer), *self.abandoned, *overdue]

    def has_suspect(self) -> bool:
        """Whether a suspect is held, and so nothing else may be: it comes alone, so it is the first of the buffer."""
        jobs = [place.job for place in self.running if place.job]
        return self.suspect_abandoned or any(job.losses for job in [*jobs, *list(self.buffer)[:1]])

    def needs(self, type: str) -> float:
        """Seconds that a job of this type must be given: its time-out, else what its history says, else the floor."""
        need = self._needs.get(type)
        if need is None:
            budget, timeout = self.clock.budget, self.registry.timeout(type)
            expected = timeout or self.durations.expected(type) or min(FLOOR, budget / 10)
            # What was slow once must still find a tick that it may start in: a fresh one.
            need = self._needs[type] = min(expected, max(timeout or 0.0, budget * 0.8))
        return need

    def hold(self, jobs: list[Job]) -> None:
        """Take claimed jobs: the limited ones start before the others, as they may not wait."""
        self.buffer.extendleft(job for job in reversed(jobs) if job.lane)
        self.buffer.extend(job for job in jobs if not job.lane)

    def give_back(self, jobs: list[Job]) -> None:
        """Release jobs that have not started."""
        for job in jobs:
            self.buffer.remove(job)
            self.settle(job, Released())

    def fill(self) -> None:
        """Start as many places as there are jobs for."""
        for _ in range(min(len(self.buffer), self.concurrency - len(self.running))):
            place = Place()
            self.running.add(place)
            place.task = asyncio.create_task(self._work(place), context=self._blank.copy())

    async def _work(self, place: Place) -> None:
        """Run jobs one after the other until there are none: a task for a place, not for each tiny job."""
        turn = time.monotonic()
        try:
            while (job := self._next_job()) is not None:
                await self._run(place, job)
                if place not in self.running or self._context_was_changed():
                    return
                if self.buffer and self.last_outcome - turn > YIELD:
                    await asyncio.sleep(0)
                    turn = time.monotonic()
        finally:
            self.running.discard(place)
            self.wake.set()

    def _next_job(self) -> Job | None:
        """The next job that the time left admits; those that it does not are released."""
        while self.buffer and not self.over():
            job = self.buffer.popleft()
            if len(self.buffer) == self.low_water:
                self.wake.set()
            if self._may_start(job):
                return job
            self.settle(job, Released())
        return None

    def _may_start(self, job: Job) -> bool:
        """Whether it fits the time left; and whether a limited job starts so soon after its claim that rates hold."""
        if job.lane is not None and time.monotonic() > self.start_by.pop(job.id, 0.0):
            return False
        needs = min(job.timeout, self.longest) if job.timeout else self.needs(job.type)
        return needs < self.clock.remaining()

    async def _run(self, place: Place, job: Job) -> None:
        try:
            handler = self.registry.get(job.type)
        except Exception as error:  # noqa: BLE001 - the module of a built-in type is imported with its first job, and may not let itself be
            self.settle(job, Dead(Failure(runner.describe(error), runner.trace(error))))
            return
        if self.tracing:
            place.span, job = self.tracing.begin(job)
        self._occupy(place, job, job.timeout or handler.timeout)
        deadline = self.clock.instant(place.ends_at)
        context = place.context = Context(job, deadline, place.ends_at, self.registry, self.shared)
        try:
            outcome = await self._attempt(place, job, handler, context)
        except asyncio.CancelledError:
            if not handler.is_async:
                self._abandon(place)
                return
            outcome = runner.stopped(job, handler, place.why, time.monotonic() - place.started)
        except Exception as error:  # noqa: BLE001 - no attempt may end without an outcome, not by a fault of ours either
            outcome = Dead(Failure(runner.describe(error), runner.trace(error)))
        _forget_cancellation(place.task)
        if place not in self.running:
            return  # It was abandoned while it ran: its outcome is no longer this tick's to write.
        if context.said:
            self.last_words.append((job, context.said))
        place.job, place.cut_at = None, None
        outcome = Cancelled() if context.cancelled and isinstance(outcome, Done) else outcome
        seconds = time.monotonic() - place.started
        self.durations.record(job.type, seconds)
        self.count(place, job, outcome, seconds)
        self.settle(job, outcome)

    async def _attempt(self, place: Place, job: Job, handler: Handler[..., ..., Any], context: Context) -> Outcome:
        token = logs.current_job.set(job)
        try:
            work = runner.run(job, handler, context, self._threads, self.registry.middleware)
            if self.tracing and place.span:
                return await self.tracing.inside(place.span, work)
            return await work
        finally:
            logs.current_job.reset(token)

    def count(self, place: Place, job: Job, outcome: Outcome, seconds: float) -> None:
        """Add an attempt that has ended, after so many seconds, to the statistics, the log and the traces."""
        waited = self.clock.since(job.run_at, place.started)
        self.tally.add(job.type, _COUNTS_AS.get(type(outcome), "released"), seconds, waited)
        self.lines.job_ended(job, outcome, seconds, waited)
        if self.tracing and place.span:
            self.tracing.job_ended(place.span, job, outcome, seconds, waited)

    def _occupy(self, place: Place, job: Job, timeout: float | None) -> None:
        place.job, place.started = job, time.monotonic()
        own = place.started + timeout if timeout else self.clock.deadline
        place.ends_at = min(self.clock.deadline, own)
        place.why = "timeout" if own < self.clock.deadline else "deadline"

    def _context_was_changed(self) -> bool:
        """Whether the handler left context variables behind, which the next job must not see."""
        return contextvars.copy_context() != self._blank

    def settle(self, job: Job, outcome: Outcome) -> None:
        """Keep an outcome for the next exchange."""
        self.outcomes.append((job, outcome))
        self.last_outcome = time.monotonic()
        if job.key is not None or job.lane is not None or job.followed or getattr(outcome, "follow_ups", None):
            self.unlocked = True
        if not self.buffer:
            self.wake.set()

    def take_outcomes(self) -> list[tuple[Job, Outcome]]:
        """All that are ready, leaving none."""
        outcomes, self.outcomes = self.outcomes, []
        return outcomes

    async def wait(self, until: float) -> None:
        """Until something has happened, or must be done about a place, or it is `until`; then do it."""
        self.wake.clear()
        at = min([until, *(place.next_event() for place in self.running)])
        timer = asyncio.get_running_loop().call_later(max(0.0, at - time.monotonic()), self.wake.set)
        await self.wake.wait()
        timer.cancel()
        self._look_after()

    def _look_after(self) -> None:
        """Cut what has outrun its time, and abandon what does not heed that."""
        now = time.monotonic()
        for place in list(self.running):
            if place.job is None or now < place.next_event():
                continue
            if place.cut_at is None:
                place.cut(place.why)
            else:
                self._abandon(place)

    def _abandon(self, place: Place) -> None:
        """Leave a handler that does not stop to itself, and free its place.

        It may still be at work, so the job stays leased, and no other of its key can run. Its own time-out or a
        cancellation is settled when the tick ends; for what the tick's end itself cut nothing is written, and the
        job is reclaimed after its lease.
        """
        job = place.job
        self.running.discard(place)
        if place.task is not None:
            _abandoned.add(place.task)
            place.task.add_done_callback(_abandoned.discard)
        if job is None:
            return
        self.suspect_abandoned = self.suspect_abandoned or job.losses > 0
        logger.warning("abandoned: job %s (%s) did not stop when it was told to (%s)", job.id, job.type, place.why)
        if place.why in ("timeout", "cancel"):
            after = time.monotonic() - place.started
            outcome = runner.stopped(job, self.registry.get(job.type), place.why, after)
            self.count(place, job, outcome, after)
            self.overdue.append((job, outcome))
        else:
            self.abandoned.append(job.id)
            if self.tracing and place.span:
                self.tracing.job_abandoned(place.span)

    def take_progress(self) -> list[tuple[Job, bytes]]:
        """What handlers have said of their progress since they were last asked."""
        said, self.last_words = self.last_words, []
        for place in self.running:
            if place.job and place.context and place.context.said:
                said.append((place.job, place.context.said))
                place.context.said = None
        return sorted(said)

    def cancel(self, ids: list[int]) -> None:
        """Tell jobs that somebody has cancelled them: a coroutine is cancelled, a plain function may look."""
        for place in self.running:
            if place.job and place.context and place.job.id in ids:
                place.context.cancelled = True
                if self.registry.get(place.job.type).is_async:
                    place.cut("cancel")

    async def empty(self, grace_until: float) -> None:
        """Release what has not started, and end what runs: until then it may by itself, then it is cut."""
        for job in self.buffer:
            self.outcomes.append((job, Released()))
        self.buffer.clear()
        while self.running and time.monotonic() < grace_until:
            await self.wait(grace_until)
        for place in self.running:
            place.cut("deadline" if self.clock.remaining() <= 0 else "stop")
        while self.running:
            await self.wait(time.monotonic() + STUBBORN)

    async def close(self) -> None:
        """Close what the handlers shared, in the time that a handler has to end."""
        try:
            await asyncio.wait_for(self.shared.close(), STUBBORN)
        except Exception as error:  # noqa: BLE001 - it is the handlers' own, and their jobs have ended
            logger.warning("what the handlers of this tick shared did not close: %s", runner.describe(error))

    def drop(self) -> None:
        """Leave nothing running that can be stopped, when the tick itself has failed."""
        for place in self.running:
            if place.task is not None:
                place.task.cancel()
