"""Watching, a chore: facts are read, judged by the rules of [alerts], and what there is to tell is enqueued."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from . import alert_job, alerts, database, facts
from .alerts import Alert, Facts, Judged, Memory, Message, Rules, Target
from .config import Settings
from .database import Statement
from .jobs import NewJob
from .masking import known_secrets, mask_text
from .queue import Chore, Queue, to_json

logger = logging.getLogger("tick")

READ_SECONDS = 5.0
"""How long a question may take."""
TICKS = 100
"""The latest ticks, among which gaps are looked for."""
PAGE = 500
"""Schedules looked at in one watch; with more of them it takes several to see all."""
FEWEST_ATTEMPTS = 10
"""Attempts in a quarter of an hour below which a share of failures says nothing."""
DIRECT_SECONDS = 20.0
"""How long telling may take while no tick comes to do it."""


class Stopped(NamedTuple):
    """The claim to tell that ticks have stopped: whom, and since when."""

    targets: list[Target]
    since: datetime
    now: datetime


async def watch(queue: Queue, chore: Chore, settings: Settings, seconds: float) -> None:
    """The chore of a tick: what it finds is kept, told and remembered in one transaction."""
    rules, memory = Rules.of(chore.settings["rules"]), msgspec.convert(chore.state, Memory)
    seen, known = await _look(queue, rules, memory, settings, seconds)
    found = alerts.find(rules, seen, memory)
    judged = alerts.judge(rules, seen, found, known)
    changes = {
        "state": to_json(alerts.remember(memory, seen, found, PAGE)),
        "turn": memory.turn,
        "alerts": to_json([alerts.told(each, seen.now) for each in judged]),
        "jobs": to_json([new.fields() for new in _jobs(settings, chore, judged, seen.now)]),
    }
    await queue.send(_ask("tell", changes))


async def _look(
    queue: Queue, rules: Rules, memory: Memory, settings: Settings, seconds: float
) -> tuple[Facts, list[Alert]]:
    """The facts that the rules ask for, and the alerts that there are: one round trip."""
    asked = _questions(rules, memory)
    answers = await database.read(
        queue.connection, queue.schema, *asked.values(), seconds=max(0.1, min(seconds, READ_SECONDS))
    )
    rows = dict(zip(asked, answers, strict=True))
    (clock,), known = rows.pop("clock"), rows.pop("open_alerts")
    secrets = known_secrets(settings)
    masked = {name: [_masked(row, secrets) for row in read] for name, read in rows.items()}
    return Facts(clock["now"], **masked), [Alert(**row) for row in known]


def _questions(rules: Rules, memory: Memory) -> dict[str, Statement]:
    """By the field of Facts that they answer."""
    muted = {"mute": list(rules.mute), "itself": alerts.ITSELF}
    asked = {"clock": _ask("clock", {}), "open_alerts": _ask("open_alerts", {"repeat": rules.repeat})}
    if rules.dead:
        bounds = {"most": alerts.MOST_DEAD, "overlap": alerts.OVERLAP}
        asked["deaths"] = _ask("deaths", muted | bounds | {"since": memory.since, "counted": memory.counted})
    if rules.failure_rate:
        asked["rates"] = _ask("rates", muted | {"rate": rules.failure_rate, "fewest": FEWEST_ATTEMPTS})
    if rules.backlog:
        asked["depth"] = facts.depth(alerts.FULL)
    if rules.stopped:
        asked |= {"ticks": facts.recent_ticks(TICKS), "triggers": facts.triggers()}
    if rules.missed:
        asked["windows"] = _ask("windows", {"after": memory.after, "page": PAGE, "most": rules.missed})
    return asked


def _masked(row: Mapping[str, Any], secrets: Iterable[str]) -> Mapping[str, Any]:
    """The row, its errors without secrets; and whether a kind of error is `clean`, so that a link may name it."""
    kind, masked = row.get("fingerprint"), dict(row)
    masked |= {name: mask_text(row[name], secrets) for name in ("last_error", "fingerprint") if row.get(name)}
    return {**masked, "clean": kind is not None and kind == masked["fingerprint"]}


def _jobs(settings: Settings, chore: Chore, judged: list[Judged], now: datetime) -> list[NewJob]:
    """A job for each of whom to tell; what is about such jobs is told by itself, and its own death by nothing."""
    targets = [Target(*target) for target in chore.settings["targets"]]
    itself = [each for each in judged if each.alert.subject == alerts.ITSELF]
    rest = [each for each in judged if each.alert.subject != alerts.ITSELF]
    told = [(alerts.message(alert_job.app(settings), part, now), part is itself) for part in (rest, itself)]
    return [new for message, last in told if message for new in alert_job.new_jobs(targets, message, last=last)]


async def claim_stopped(queue: Queue) -> Stopped | None:
    """The right to tell that ticks have stopped, if alerts ask for it and nobody has had it lately."""
    (reply,) = await queue.send(_ask("claim_stopped", {}))
    for settings, since, now in reply.rows:
        return Stopped([Target(*target) for target in settings["targets"]], since, now)
    return None


async def tell_stopped(settings: Settings, stopped: Stopped) -> None:
    """Tell it at once, since no tick comes to run a job; until somebody was told, another may try in a minute."""
    message = alerts.stopped_message(alert_job.app(settings), stopped.since, stopped.now)
    if not await _tell_now(settings, stopped.targets, message):
        return
    async with database.connect(settings.database_url or "") as connection:
        queue = Queue(connection, lambda: database.open_connection(""), settings.schema)
        await queue.send(_ask("confirm_stopped", {}))


async def _tell_now(settings: Settings, targets: list[Target], message: Message) -> bool:
    """Whether at least one of them was told, in so much time."""
    sending = [asyncio.create_task(alert_job.send_now(settings, target, message)) for target in targets]
    done, late = await asyncio.wait(sending, timeout=DIRECT_SECONDS)
    for task in late:
        task.cancel()
    for failed in (task for task in done if task.exception()):
        logger.warning("nobody could be told that ticks have stopped: %s", failed.exception())
    return any(task.exception() is None for task in done)


def _ask(name: str, params: Mapping[str, Any]) -> Statement:
    return Statement(name, dict(params), "watch")
