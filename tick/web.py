"""The HTTP door: /tick for any external cron, and /health for any monitor. `app` is the ASGI application."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from . import auth, database, facts, handlers, keys, logs, platforms
from .api import Api
from .config import LONGEST_BUDGET, Settings, check_budget
from .dashboard import Dashboard
from .errors import ConfigurationError, DatabaseError, DatabaseUnavailable, TickError
from .handlers import Registry
from .metrics import Metrics
from .places import Stop
from .problems import NO_STORE, problem
from .processor import process_tick
from .queue import Queue
from .verdict import beat

if TYPE_CHECKING:
    from .watch import Stopped

HEALTH_SECONDS = 5.0
"""How long an answer of /health stands, so that anybody may ask without the database noticing; and may take."""

logger = logging.getLogger("tick")


class Service:
    """What the requests of one process share: settings, handlers, and the ticks in flight."""

    def __init__(self, settings: Settings | None = None, registry: Registry | None = None) -> None:
        self._settings = settings
        self._registry = registry
        self.stops: set[Stop] = set()
        self._health: tuple[float, Response] = (-math.inf, Response())
        self._stopped: Stopped | None = None
        self._looking = asyncio.Lock()

    @cached_property
    def settings(self) -> Settings:
        return self._settings or Settings.load()

    @cached_property
    def registry(self) -> Registry:
        registry = self._registry or handlers.load(self.settings.modules, self.settings.root)
        registry.check(platforms.budget(self.settings))
        return registry

    def start(self) -> None:
        """Load settings and handlers, so that what cannot work is an error at start and not at the first tick."""
        logs.configure(self.settings)
        auth.check(self.settings)
        keys.check(self.settings)
        if gap := auth.qstash_gap(self.settings):
            logger.warning("QStash is not let in: %s", gap)
        self.registry  # noqa: B018 - reading it loads it

    def stop(self) -> None:
        """Ask every tick in flight to end."""
        for stop in list(self.stops):
            stop()

    async def tick(self, request: Request) -> Response:
        """GET or POST: one tick. HEAD answers without ticking."""
        refusal = await self.refuse(request)
        if refusal or request.method == "HEAD":
            return refusal or Response(headers=NO_STORE)
        try:
            budget = platforms.budget(self.settings, asked=_asked_budget(request), scope=request.scope)
        except ValueError:
            return problem(
                400,
                "Bad budget",
                f"budget must be a number of seconds from 1 to {LONGEST_BUDGET:.0f}; it only lowers the budget",
            )
        if _may_leave(request):
            return self.accepted(request, budget)
        return await self.answer(lambda: self.run(request, budget))

    async def refuse(self, request: Request) -> Response | None:
        """401 without a valid credential; 503 when none is configured, so that a missing setting opens no door."""
        if not auth.is_configured(self.settings):
            detail = "CRON_SECRET is not set: set it to a long random text, here and where your cron is"
            gap = auth.qstash_gap(self.settings)
            return problem(503, "No secret is configured", f"{detail}; or {gap}" if gap else detail)
        try:
            who = await auth.authenticate(request.headers, request.stream(), self.settings)
        except auth.BodyTooLong:
            return problem(413, "The body is too long", f"send at most {auth.LONGEST_BODY} bytes, or none at all")
        except auth.KeysUnavailable:
            detail = "the keys of the token's issuer cannot be had; the log says why"
            return problem(503, "The caller cannot be verified", detail, {"retry-after": "5"})
        except ConfigurationError as error:
            logger.error("nobody is let in: %s", error)  # noqa: TRY400 - it says what to change
            return problem(500, "The configuration cannot be used", "the log says why")
        if who is None:
            detail = "send the header `Authorization: Bearer <CRON_SECRET>`, or another credential; the log says why"
            return problem(401, "Unauthorized", detail, {"www-authenticate": 'Bearer realm="tick"'})
        return None

    def accepted(self, request: Request, budget: float) -> Response:
        """202 at once; the tick follows, in the same invocation. What it meets, only the log can tell."""

        async def work() -> None:
            answer = await self.answer(lambda: self.run(request, budget))
            if answer.status_code != 200:
                logger.error("%s", bytes(answer.body).decode())

        body = {"status": "accepted", "budget": budget}
        return JSONResponse(body, 202, headers=NO_STORE, background=BackgroundTask(work))

    async def run(self, request: Request, budget: float) -> Response:
        stop = Stop()
        self.stops.add(stop)
        try:
            report = await process_tick(
                self.settings,
                self.registry,
                trigger=platforms.trigger(request.headers),
                budget=budget,
                stop=stop,
            )
        finally:
            self.stops.discard(stop)
        return JSONResponse(report.as_dict(), headers=NO_STORE)

    async def answer(self, work: Callable[[], Awaitable[Response]], tell: Callable[[Exception], str] = str) -> Response:
        """What the work answers, or the problem that it met; `tell` says of it what the caller may know."""
        try:
            return await work()
        except DatabaseUnavailable as error:
            return problem(503, "Postgres is unavailable", tell(error), {"retry-after": "5"})
        except DatabaseError as error:
            return problem(503, "The database is not ready", str(error), {"retry-after": "30"})
        except ConfigurationError as error:
            return problem(500, "The configuration cannot be used", tell(error))

    async def health(self, _: Request) -> Response:
        """200 while ticks come as they should, 503 once they have stopped, which alerts tell; anybody may ask."""
        async with self._looking:
            asked, answer = self._health
            if time.monotonic() - asked >= HEALTH_SECONDS:
                answer = await self.answer(
                    self.look_in_time, tell=lambda error: "a call of /tick with the secret says why"
                )
                self._health = (time.monotonic(), answer)
            stopped, self._stopped = self._stopped, None
        if stopped is None:
            return answer
        from . import watch

        # After the answer, and only after this one: who asks should not have to wait for a mail server.
        told = BackgroundTask(watch.tell_stopped, self.settings, stopped)
        return Response(answer.body, answer.status_code, dict(answer.headers), background=told)

    async def look_in_time(self) -> Response:
        looking = asyncio.create_task(self.look())
        # Not wait_for, which waits for what it cancels: a database that hangs would not be noticed.
        await asyncio.wait({looking}, timeout=HEALTH_SECONDS)
        if not looking.done():
            looking.cancel()
            raise DatabaseUnavailable("the database did not answer")
        return looking.result()

    async def look(self) -> Response:
        async with database.connect(self.settings.database_url or "") as connection:
            ((pulse,),) = await database.read(connection, self.settings.schema, facts.pulse())
            body = judge(**pulse)
            if body["status"] == "stopped":
                queue = Queue(connection, lambda: database.open_connection(""), self.settings.schema)
                self._stopped = await self.claim(queue)
        return JSONResponse(body, 200 if body["status"] != "stopped" else 503, headers=NO_STORE)

    async def claim(self, queue: Queue) -> Stopped | None:
        """The right to tell it; on a server that cannot be written there is none, and the answer stands."""
        from . import watch

        try:
            return await watch.claim_stopped(queue)
        except TickError as error:
            logger.warning("nobody is told that ticks have stopped: %s", error)
            return None


def judge(since: float | None, last_tick: Any, installed: float | None, gap: float | None) -> dict[str, Any]:
    """The answer of /health.

    From the seconds since the last tick, its start, the seconds since the installation, and the median of the seconds
    between the last twenty ticks. `verdict.beat` has the rule.
    """
    beating = beat(since, installed, gap)
    return {
        "status": beating.status,
        "last_tick": last_tick.isoformat() if last_tick else None,
        "seconds_since": None if since is None else round(since, 1),
        "expected_every": round(beating.interval, 1),
    }


def _asked_budget(request: Request) -> float | None:
    given = request.query_params.get("budget")
    return None if given is None else check_budget(float(given))


def _may_leave(request: Request) -> bool:
    """Whether the caller does not want to wait: `?wait=0`, or `Prefer: respond-async` (RFC 7240)."""
    prefers = "respond-async" in request.headers.get("prefer", "")
    return request.query_params.get("wait", "1").lower() in ("0", "false", "no") or prefers


async def not_found(request: Request, _: Exception) -> Response:
    detail = f"there is nothing at {request.url.path}; try /tick, /health, /jobs, /dashboard or /openapi.json"
    return problem(404, "Not found", detail)


async def not_allowed(request: Request, error: Exception) -> Response:
    headers: dict[str, str] = getattr(error, "headers", None) or {}
    allowed = ", ".join(sorted(headers.get("Allow", "GET").split(", ")))
    return problem(405, "Method not allowed", f"{request.url.path} takes {allowed}", {"allow": allowed})


async def unexpected(_: Request, error: Exception) -> Response:
    return problem(500, "Something went wrong", type(error).__name__)


def create_app(settings: Settings | None = None, registry: Registry | None = None) -> Starlette:
    """The application; without arguments it is configured by its environment, when it starts."""
    service = Service(settings, registry)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        service.start()
        with _told_of_signals(service.stop):
            yield
        service.stop()

    # Both spellings, since a redirect of the other would be final to most crons and run nothing.
    paths = [("/tick", service.tick, ["GET", "POST"]), ("/health", service.health, ["GET"])]
    routes: list[BaseRoute] = [
        Route(path + slash, endpoint, methods=methods) for path, endpoint, methods in paths for slash in ("", "/")
    ]
    routes += [*Api(service).routes(), *Metrics(service).routes(), *Dashboard(service).routes()]
    handled: dict[Any, Any] = {404: not_found, 405: not_allowed, TickError: unexpected, 500: unexpected}
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers=handled)
    app.router.redirect_slashes = False
    app.state.service = service
    return app


app = create_app()


@contextmanager
def _told_of_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Have `stop` called on SIGTERM and SIGINT, before the server's own part.

    A server waits for the requests in flight before it ends the application: and those are the ticks.
    """
    handlers: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}

    def handle(number: int, frame: Any) -> None:
        stop()
        handlers[number](number, frame)

    for number in handlers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def serve(app: Starlette, host: str, port: int) -> None:
    """Serve the application until SIGTERM or SIGINT, which ends the ticks in flight within their grace; then exit 0."""
    import uvicorn

    # uvicorn raises the signal once more when it has ended in order.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    logging.getLogger("uvicorn.access").addFilter(logs.path_alone)
    # Its lines go where all others go, and in their form.
    uvicorn.Server(uvicorn.Config(app, host=host, port=port, log_config=None, log_level="info")).run()
