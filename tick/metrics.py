"""/metrics, for Prometheus: what the database says, so that every process answers the same."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from . import auth, database, facts, keys
from .api import Door
from .calls import Call
from .errors import DatabaseUnavailable
from .history import upper_bound
from .problems import NO_STORE, problem
from .refusals import Refused

if TYPE_CHECKING:
    from prometheus_client import Metric

TYPES = 100
"""Types that have series of their own; all others are summed up."""
TRIGGERS = 20
"""Triggers that have series, those that ticked last: whoever may tick can call itself anything."""
SECONDS = 8.0
"""How long the database may take; Prometheus gives up after ten."""
SHORTEST_INTERVAL = 60.0
OCTAVE = 2
"""Half-octaves in a bucket that is served: half as many series, and percentiles still within a factor of two."""
OUTCOMES = ("done", "retried", "dead", "released", "lost")
_UP_TO = f"counted up to {facts.MOST:,}: {facts.MOST + 1} means more"
_WANTED = "send one header `Authorization: Bearer <token>`: CRON_SECRET, or an API key with the scope read"

logger = logging.getLogger("tick")
Row = dict[str, Any]
QUESTIONS = (
    facts.depth(),
    facts.counters(TYPES),
    facts.pulse(),
    facts.triggers(),
    facts.recent_ticks(2),
    facts.schedule_counts(),
    facts.open_alerts(),
)


class Metrics:
    """What is served of metrics."""

    def __init__(self, door: Door) -> None:
        self.door = door
        self._room = asyncio.Semaphore(2)

    def routes(self) -> list[Route]:
        return [Route(path, self.show, methods=["GET"]) for path in ("/metrics", "/metrics/")]

    async def show(self, request: Request) -> Response:
        """GET: the exposition, in OpenMetrics for who prefers it."""
        return await self.door.answer(lambda: self._serve(request), tell=_untold)

    async def _serve(self, request: Request) -> Response:
        if refusal := await self._refuse(request):
            return refusal
        answers = await self._ask()
        # In a thread: thousands of lines take a tenth of a second, and ticks of this process would stand still for it.
        return await asyncio.to_thread(_exposition, answers, request.headers.get("accept", ""))

    async def _refuse(self, request: Request) -> Response | None:
        """401 or 403 for who may not read; 503 as long as nobody may."""
        settings, bearer = self.door.settings, _bearer(request)
        if auth.is_secret(bearer, settings.secrets):
            return None
        if not (settings.secrets or settings.api_keys or keys.KEY.fullmatch(bearer)):
            detail = "CRON_SECRET is not set: set it to a long random text; or make an API key with the scope read"
            return problem(503, "No secret is configured", detail)
        try:
            await self._check_key(request)
        except Refused as refused:
            return refused.response()
        return None

    async def _check_key(self, request: Request) -> None:
        """Raises Refused unless the request bears an API key that may read."""
        try:
            caller = keys.recognise(request.headers, self.door.settings)
        except Refused as refused:
            raise Refused("unauthorized", _WANTED, refused.headers) from None
        call = Call(self.door.settings, caller, "read", self._room)
        try:
            call.need("read")
            await call.prove()
        finally:
            await call.close()

    async def _ask(self) -> list[list[Row]]:
        """All that is asked, in one round trip. Raises DatabaseError."""
        asking = asyncio.create_task(self._read())
        # Not wait_for, which waits for what it cancels: a database that hangs would not be noticed.
        await asyncio.wait({asking}, timeout=SECONDS)
        if not asking.done():
            asking.cancel()
            raise DatabaseUnavailable("the database did not answer")
        return asking.result()

    async def _read(self) -> list[list[Row]]:
        async with self._room, database.connect(self.door.settings.database_url or "") as connection:
            return await database.read(connection, self.door.settings.schema, *QUESTIONS, seconds=SECONDS)


def _bearer(request: Request) -> str:
    """The token of the one Authorization header; of several, others might read another one."""
    given = request.headers.getlist("authorization")
    scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else ""


def _untold(error: Exception) -> str:
    """What a caller who may be anybody is told of an error here."""
    logger.error("metrics cannot be had: %s", error)
    return "try again; the log says why"


def _exposition(answers: Sequence[list[Row]], accept: str) -> Response:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(*answers))
    encode, media_type = choose_encoder(accept)
    return Response(encode(registry), headers=NO_STORE, media_type=media_type)


class _Scrape:
    """The rows of the questions, as families of metrics."""

    def __init__(self, *answers: list[Row]) -> None:
        depth, self.counters, pulse, triggers, self.ticks, schedules, self.alerts = answers
        self.triggers = triggers[:TRIGGERS]
        self.depth, self.pulse, self.schedules = depth[0], pulse[0], schedules[0]

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        from importlib.metadata import version

        from prometheus_client.core import InfoMetricFamily

        yield InfoMetricFamily("tick_build", "The version that answers.", value={"version": version("tick-jobs")})
        yield from self._attempts()
        yield from self._queue()
        yield from self._ticks()
        yield from self._triggers()
        yield _gauge("tick_schedules", "Schedules in the file that last ticked.", self.schedules["schedules"])
        yield _gauge("tick_schedules_paused", "Those of them that are paused.", self.schedules["paused"])
        open_now = [([row["rule"]], row["count"]) for row in self.alerts]
        yield _gauges("tick_alerts_open", "Alerts that last now, by their rule.", ["rule"], open_now)

    def _attempts(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        told = (
            "How attempts ended, counted as their tick ends. A job that has lost its last lease is counted as lost, and"
            f" as dead. Types beyond the first {TYPES} by name are summed up as {facts.OTHERS}."
        )
        attempts = CounterMetricFamily("tick_attempts", told, labels=["type", "outcome"])
        for row in self.counters:
            for outcome in OUTCOMES:
                attempts.add_metric([row["type"], outcome], row[outcome])
        yield attempts
        yield self._histogram("tick_job_run_seconds", "How long attempts ran that were not lost.", "run")
        yield self._histogram("tick_job_wait_seconds", "How long they had been due before they started.", "wait")

    def _histogram(self, name: str, told: str, of: str) -> Metric:
        from prometheus_client.core import HistogramMetricFamily

        family = HistogramMetricFamily(name, told, labels=["type"])
        for row in self.counters:
            family.add_metric([row["type"]], _buckets(row[f"{of}s"]), sum_value=row[f"{of}_seconds"])
        return family

    def _queue(self) -> Iterator[Metric]:
        now, oldest = self.depth["now"], self.depth["oldest_due"]
        yield _gauge("tick_jobs_due", f"Jobs that are due, {_UP_TO}.", self.depth["due"])
        yield _gauge(
            "tick_oldest_due_seconds",
            "How long the oldest of them has been due; 0 when there is none.",
            (now - oldest).total_seconds() if oldest else 0,
        )
        yield _gauge("tick_jobs_later", f"Jobs that are due later, {_UP_TO}.", self.depth["later"])
        yield _gauge("tick_jobs_behind_keys", f"Jobs behind others of their key, {_UP_TO}.", self.depth["behind_keys"])
        yield _gauge("tick_jobs_running", f"Jobs that are leased to a tick, {_UP_TO}.", self.depth["running"])
        yield _gauge("tick_jobs_lease_expired", f"Those of them whose lease is over, {_UP_TO}.", self.depth["expired"])
        yield _gauge("tick_jobs_dead", f"Dead jobs that are kept, {_UP_TO}.", self.depth["dead"])

    def _ticks(self) -> Iterator[Metric]:
        last, since = self.pulse["last_tick"], self.pulse["since"]
        yield _gauge(
            "tick_last_tick_timestamp_seconds", "When the last tick began.", last.timestamp() if last else None
        )
        yield _gauge(
            "tick_last_tick_age_seconds",
            "Seconds since the last tick began, by the database's clock; since the installation, if there was none.",
            self.pulse["installed"] if since is None else since,
        )
        yield _gauge(
            "tick_expected_interval_seconds",
            "The median distance of the last twenty ticks, a minute at least.",
            max(SHORTEST_INTERVAL, self.pulse["gap"] or 0.0),
        )
        ended = next((tick for tick in self.ticks if tick["finished_at"]), {"budget": None, "used": None})
        yield _gauge("tick_last_tick_budget_seconds", "How long the last tick was allowed to take.", ended["budget"])
        yield _gauge("tick_last_tick_used_seconds", "How long it took.", ended["used"])

    def _triggers(self) -> Iterator[Metric]:
        last = [([row["trigger"]], row["last_tick"].timestamp()) for row in self.triggers]
        told = "When each trigger last ticked, of those of the last 2,000 ticks."
        yield _gauges("tick_trigger_last_tick_timestamp_seconds", told, ["trigger"], last)
        gaps = [([row["trigger"]], row["gap"]) for row in self.triggers if row["gap"] is not None]
        yield _gauges("tick_trigger_interval_seconds", "The median distance of its ticks.", ["trigger"], gaps)


def _buckets(histogram: Sequence[int]) -> list[tuple[str, float]]:
    """How many were as long as each bound at most."""
    so_far = list(accumulate(histogram))
    bounds = range(0, len(histogram) - 1, OCTAVE)
    within = [(str(upper_bound(index)), float(so_far[index])) for index in bounds]
    return [*within, ("+Inf", float(so_far[-1]))]


def _gauge(name: str, told: str, value: float | None) -> Metric:
    """A gauge without labels; without a value, it has no sample."""
    return _gauges(name, told, [], [] if value is None else [([], value)])


def _gauges(name: str, told: str, labels: list[str], values: Sequence[tuple[list[str], float]]) -> Metric:
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(name, told, labels=labels)
    for each, value in values:
        family.add_metric(each, value)
    return family
