"""Alerts: what is worth telling, judged from facts by rules, and in which words. Plain values, no I/O."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from itertools import groupby, pairwise
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

CHANNELS = ("slack", "webhook", "email")
ITSELF = "tick.alert"
"""The type that tells. Its failures are no reason to tell more; its deaths are told once, by a message of their own."""
LATE_AFTER = 3
"""Intervals without a tick after which ticks, or those of one trigger, have stopped."""
SHORTEST_INTERVAL = 60.0
REGULAR = 5
"""Ticks, or distances between ticks, from which an interval is known."""
BURST = 30.0
"""Seconds between the ticks of a trigger below which it is somebody's finger, and no clock."""
BY_HAND = frozenset({"cli", "dev", "doorbell"})
"""Triggers that nobody expects to come regularly."""
SAMPLES = 300.0
"""Seconds that samples of the queue's depth are kept."""
STEADY = 230.0
"""Seconds that a queue has to be watched before it can be said not to shrink: of the ticks of five minutes, the first
and the last are four minutes apart."""
OVERLAP = 30.0
"""Seconds before a watch that the next one looks at again, for what was not yet committed."""
MOST_DEAD = 5000
"""Deaths read at once; more are told as "5,000+"."""
FULL = 10_000
"""Where the depth of a queue ends."""
KINDS = 4
"""Kinds of error that one alert lists."""
PARTS = 12
"""Alerts that one message tells of in full."""
LONGEST_LINE = 200

Row = Mapping[str, Any]


# --- What to tell of, and whom -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rules:
    """When to tell; a rule that is False is off. Durations are in seconds.

    Attributes:
        dead: a job has died.
        failure_rate: so much of a type's attempts of the last 15 minutes failed, of ten at least.
        backlog: the oldest due job has waited for so long, and the queue does not shrink.
        stopped: no tick came for three intervals.
        missed: none of a schedule's last so many windows succeeded.
        repeat: until the same subject is told again.
        quiet: without a death or a failure, until jobs of a type have recovered.
        mute: types of which neither deaths nor failures are told.
    """

    dead: bool = True
    failure_rate: float | bool = 0.5
    backlog: float | bool = 600.0
    stopped: bool = True
    missed: int | bool = 3
    repeat: float = 3600.0
    quiet: float = 900.0
    mute: tuple[str, ...] = ()

    @classmethod
    def of(cls, values: Row) -> Rules:
        """The rules with what is set of them; what another version has set is left out."""
        given = {each.name: _plain(values[each.name]) for each in fields(cls) if each.name in values}
        return cls(**given)

    def has(self, alert: Alert) -> bool:
        """Whether what the alert is about is still told at all."""
        setting = "failure_rate" if alert.rule == "failing" else alert.rule
        return bool(getattr(self, setting, False)) and alert.subject not in self.mute


def _plain(value: Any) -> Any:
    if isinstance(value, timedelta):
        return value.total_seconds()
    return tuple(value) if isinstance(value, list) else value


class Target(NamedTuple):
    """Whom to tell: a channel, and the name of the address there, which gives no secret away."""

    channel: str
    to: str


def targets(values: Row) -> dict[Target, str]:
    """Whom the tables [alerts] name, each with the address as it is written there."""
    named = [(channel, values.get(channel, ())) for channel in CHANNELS]
    listed = [(channel, [each] if isinstance(each, str) else each) for channel, each in named]
    return {Target(channel, reference(text)): text for channel, texts in listed for text in texts}


def reference(address: str) -> str:
    """The name of an address: itself, but for a URL, whose path is often all that keeps strangers out.

    >>> reference("https://hooks.example.com/T0/B0/x")
    'hooks.example.com #0879add6'
    """
    if not address.startswith(("http://", "https://")):
        return address
    return f"{urlsplit(address).hostname} #{hashlib.sha256(address.encode()).hexdigest()[:8]}"


def chore_settings(values: Row) -> dict[str, Any]:
    """What the chore `watch` has to know, as JSON holds it."""
    return {"rules": asdict(Rules.of(values)), "targets": [list(target) for target in targets(values)]}


# --- What is so ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Facts:
    """What a watch has read, as rows of watch.sql and facts.sql; what no rule asks for is empty."""

    now: datetime
    deaths: Sequence[Row] = ()
    rates: Sequence[Row] = ()
    depth: Sequence[Row] = ()
    ticks: Sequence[Row] = ()
    triggers: Sequence[Row] = ()
    windows: Sequence[Row] = ()


@dataclass(frozen=True, slots=True)
class Memory:
    """What a watch leaves to the next one.

    Attributes:
        turn: how many there have been, so that of two that overlap one writes.
        since: the instant after which deaths have not been looked at,
        counted: but for these jobs.
        samples: Unix seconds, jobs due, and seconds that the oldest was due, of the last minutes.
        after: the schedule up to which windows have been looked at; '' is all of them.
        back_at: when ticks last came back.
    """

    since: datetime
    turn: int = 0
    counted: list[int] = field(default_factory=list)
    samples: list[tuple[float, int, float]] = field(default_factory=list)
    after: str = ""
    back_at: datetime | None = None


def remember(memory: Memory, facts: Facts, found: Iterable[Finding], page: int) -> Memory:
    """What the next watch should know; `page` is how many schedules are looked at in one."""
    paged = [row["schedule"] for row in facts.windows if row["paged"]]
    back = [finding.seen_at for finding in found if finding.over]
    return Memory(
        turn=memory.turn + 1,
        since=facts.now - timedelta(seconds=OVERLAP),
        counted=[id for row in facts.deaths for id in row["fresh"] or ()],
        samples=_samples(memory, facts),
        after=paged[-1] if len(set(paged)) == page else "",
        back_at=max(back, default=memory.back_at),
    )


def _samples(memory: Memory, facts: Facts) -> list[tuple[float, int, float]]:
    """Those of the last minutes, and the last one before, since ticks may be far apart."""
    now = facts.now.timestamp()
    old = [sample for sample in memory.samples if sample[0] < now - SAMPLES]
    kept = [sample for sample in memory.samples if now - SAMPLES <= sample[0] < now]
    return [*old[-1:], *kept, *((now, row["due"], _age(row, facts.now)) for row in facts.depth)]


def _age(depth: Row, now: datetime) -> float:
    return (now - depth["oldest_due"]).total_seconds() if depth["oldest_due"] else 0.0


# --- What a rule finds ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that a rule has found to be so.

    Attributes:
        rule: dead, failing, backlog, stopped or missed.
        subject: a type, a schedule or a trigger; '' where there is one of it.
        since: from when it has been so.
        seen_at: when it was last so.
        count: how many: jobs that died, attempts that failed, jobs that are due, windows.
        details: what the words need.
        raises: whether it is enough for a new alert, and not only for one that is there to go on.
        over: whether it has passed already.
    """

    rule: str
    subject: str
    since: datetime
    seen_at: datetime
    count: int = 1
    details: dict[str, Any] = field(default_factory=dict)
    raises: bool = True
    over: bool = False


def find(rules: Rules, facts: Facts, memory: Memory) -> list[Finding]:
    """Everything that these facts say is not as it should be."""
    gaps = _gaps(facts, memory)
    back_at = max((gap.seen_at for gap in gaps), default=memory.back_at)
    return [
        *_dead(facts),
        *_failing(facts),
        *_backlog(rules, facts, memory),
        *gaps,
        *_silent(facts, back_at),
        *_missed(int(rules.missed), facts),
    ]


def _dead(facts: Facts) -> list[Finding]:
    """By type; each with the kinds of error that there were."""
    more = sum(row["count"] for row in facts.deaths) > MOST_DEAD
    rows = sorted(facts.deaths, key=lambda row: (row["type"], -row["count"]))
    return [_dead_type(type, list(kinds), more) for type, kinds in groupby(rows, lambda row: row["type"])]


def _dead_type(type: str, rows: list[Row], more: bool) -> Finding:
    kinds = [{name: row[name] for name in ("fingerprint", "clean", "count", "last_id", "last_error")} for row in rows]
    first, last = min(row["first_at"] for row in rows), max(row["last_at"] for row in rows)
    details = {"kinds": kinds[:KINDS], "others": len(kinds[KINDS:]), "more": more}
    return Finding("dead", type, first, last, sum(row["count"] for row in rows), details)


def _failing(facts: Facts) -> Iterable[Finding]:
    for row in facts.rates:
        details = {"attempts": row["attempts"], "last_error": row["last_error"]}
        yield Finding("failing", row["type"], facts.now, facts.now, row["failed"], details)


def _backlog(rules: Rules, facts: Facts, memory: Memory) -> Iterable[Finding]:
    samples = _samples(memory, facts)
    for depth in facts.depth:
        age = _age(depth, facts.now)
        if age > float(rules.backlog):
            details = {"oldest": age}
            yield Finding("backlog", "", facts.now, facts.now, depth["due"], details, raises=not _shrinks(samples))


def _shrinks(samples: Sequence[tuple[float, int, float]]) -> bool:
    """Whether fewer jobs are due, or the oldest is younger, than five minutes ago; or may be, as far as is known."""
    now, due, age = samples[-1]
    before = [sample for sample in samples if now - sample[0] >= STEADY]
    return not before or due < before[-1][1] or age < before[-1][2]


def _gaps(facts: Facts, memory: Memory) -> list[Finding]:
    """The last time that no tick came for three intervals, if a tick has ended it since the last watch."""
    pairs = list(pairwise(facts.ticks))
    for place, (after, before) in enumerate(pairs):
        started: datetime = after["started_at"]
        if started <= max(memory.since, memory.back_at or memory.since):
            break
        usual = [_seconds(b["started_at"], a["started_at"]) for a, b in pairs[place + 1 : place + 21]]
        if len(usual) >= REGULAR and _is_late(_seconds(before["started_at"], started), median(usual)):
            details = {"by": after["trigger"]}
            return [Finding("stopped", "", before["started_at"], started, details=details, over=True)]
    return []


def _seconds(since: datetime, until: datetime) -> float:
    return (until - since).total_seconds()


def _is_late(quiet: float, interval: float) -> bool:
    return quiet > LATE_AFTER * max(SHORTEST_INTERVAL, interval)


def _silent(facts: Facts, back_at: datetime | None) -> Iterable[Finding]:
    """Triggers that came regularly, and have not for three of their intervals in which other ticks came."""
    for row in facts.triggers:
        last: datetime = row["last_tick"]
        if row["trigger"] in BY_HAND or row["ticks"] < REGULAR or (row["gap"] or 0.0) < BURST:
            continue
        if _is_late(_seconds(max(last, back_at or last), facts.now), row["gap"]):
            yield Finding("stopped", row["trigger"], facts.now, facts.now, details={"last": last, "gap": row["gap"]})


def _missed(most: int, facts: Facts) -> Iterable[Finding]:
    for schedule, rows in groupby(facts.windows, lambda row: row["schedule"]):
        # A window that waits for its turn, or was cancelled by somebody, says nothing.
        tried = [row for row in rows if row["status"] in ("done", "dead") or row["failed"]][:most]
        if len(tried) == most and all(row["status"] != "done" for row in tried):
            details = {name: tried[0][name] for name in ("window", "last_id", "last_error")}
            yield Finding("missed", schedule, facts.now, facts.now, most, details)


# --- What to tell of it --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Alert:
    """A row of tick.alerts: what is, or was, not as it should be, and when somebody was last told."""

    rule: str
    subject: str
    since: datetime
    seen_at: datetime
    told_at: datetime | None = None
    ended_at: datetime | None = None
    count: int = 1
    untold: int = 0
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str]:
        return self.rule, self.subject

    @property
    def is_told(self) -> bool:
        """Whether somebody knows of it, and not only of an earlier one."""
        return self.told_at is not None and self.told_at >= self.since


class Judged(NamedTuple):
    """An alert as it is to be kept, and what to tell of it: raised, lasts, over, recovered, or nothing."""

    alert: Alert
    tells: str = ""


def judge(rules: Rules, facts: Facts, found: Iterable[Finding], known: Iterable[Alert]) -> list[Judged]:
    """What changes by these findings, among the alerts that last or were told lately."""
    alerts = {alert.key: alert for alert in known}
    judged = []
    for finding in found:
        before = alerts.pop((finding.rule, finding.subject), None)
        if finding.raises or (before and not before.ended_at):
            judged.append(_lasting(rules, finding, before, facts.now))
    return judged + [_missing(rules, alert, facts) for alert in alerts.values() if not alert.ended_at]


def _lasting(rules: Rules, finding: Finding, before: Alert | None, now: datetime) -> Judged:
    alert = _updated(finding, before)
    if finding.over and before and not before.ended_at and before.is_told:
        return Judged(alert, "recovered")
    if not _may_tell(rules, alert, now) or (alert.is_told and alert.rule == "stopped"):
        return Judged(alert)
    return Judged(alert, "over" if finding.over else "lasts" if alert.is_told else "raised")


def _updated(finding: Finding, before: Alert | None) -> Alert:
    """The alert with what was found; one that had ended begins anew, and is only not told again too soon."""
    told_at = before.told_at if before else None
    alert = (
        before
        if before and not before.ended_at
        else Alert(*_key(finding), finding.since, finding.seen_at, told_at, count=0)
    )
    adds, died = finding.rule == "dead", finding.count if finding.rule == "dead" else 0
    return replace(
        alert,
        seen_at=finding.seen_at,
        ended_at=finding.seen_at if finding.over else None,
        count=alert.count + died if adds else finding.count,
        untold=alert.untold + died,
        details=_added(alert.details, finding.details) if adds and alert.untold else finding.details,
    )


def _key(finding: Finding) -> tuple[str, str]:
    return finding.rule, finding.subject


def _added(before: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Deaths that nobody was told of yet, and further ones: their kinds, the most frequent first."""
    kinds = {kind["fingerprint"]: kind for kind in before["kinds"]}
    for kind in found["kinds"]:
        same = kinds.get(kind["fingerprint"], {"count": 0})
        kinds[kind["fingerprint"]] = {**kind, "count": kind["count"] + same["count"]}
    most = sorted(kinds.values(), key=lambda kind: -kind["count"])
    others = max(before["others"], found["others"], len(most) - KINDS)
    return {"kinds": most[:KINDS], "others": others, "more": before["more"] or found["more"]}


def _missing(rules: Rules, alert: Alert, facts: Facts) -> Judged:
    """An alert of which nothing was found: it has recovered, or is gone, or it is too soon to say."""
    ended = replace(alert, ended_at=facts.now)
    if not rules.has(alert) or _is_gone(alert, facts):
        return Judged(ended)
    if alert.untold:
        return (
            Judged(alert, "lasts" if alert.is_told else "raised")
            if _may_tell(rules, alert, facts.now)
            else Judged(alert)
        )
    if alert.rule == "missed" and not _succeeded(alert.subject, facts):
        return Judged(alert)
    quiet = rules.quiet if alert.rule in ("dead", "failing") else 0.0
    if _seconds(alert.seen_at, facts.now) < quiet:
        return Judged(alert)
    return Judged(ended, "recovered" if alert.is_told else "")


def _succeeded(schedule: str, facts: Facts) -> bool:
    """Whether the newest of its windows that has ended was done; one that died and runs again has not ended."""
    ended = (
        row["status"] for row in facts.windows if row["schedule"] == schedule and row["status"] in ("done", "dead")
    )
    return next(ended, "") == "done"


def _may_tell(rules: Rules, alert: Alert, now: datetime) -> bool:
    return alert.told_at is None or _seconds(alert.told_at, now) >= rules.repeat


def _is_gone(alert: Alert, facts: Facts) -> bool:
    """Whether there is no such schedule any more, or no tick by such a trigger that is remembered."""
    if alert.rule == "missed":
        return alert.subject not in {row["schedule"] for row in facts.windows}
    return alert.rule == "stopped" and alert.subject not in {"", *(row["trigger"] for row in facts.triggers)}


def told(judged: Judged, now: datetime) -> Alert:
    """The alert as it is kept, once what there is to tell of it is on its way."""
    if judged.tells in ("", "recovered"):
        return judged.alert
    return replace(judged.alert, told_at=now, untold=0)


# --- In which words ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Link:
    """Where a message leads: a path of the dashboard, or what to replay by one click."""

    text: str
    path: str = ""
    replay: dict[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """What a message says of one alert."""

    title: str
    lines: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    good: bool = False


@dataclass(frozen=True, slots=True)
class Message:
    """What somebody is told, in one go, of everything that a watch has found to tell."""

    app: str
    at: datetime
    parts: list[Part]

    @property
    def title(self) -> str:
        others = len(self.parts) - 1
        return f"{self.parts[0].title}; and {others} more" if others else self.parts[0].title

    @property
    def good(self) -> bool:
        """Whether it says of everything that it is over."""
        return all(part.good for part in self.parts)


def message(app: str, judged: Sequence[Judged], now: datetime) -> Message | None:
    """One message for all that is to be told, what hurts first; None for nothing."""
    telling = sorted((each for each in judged if each.tells), key=lambda each: each.tells in ("over", "recovered"))
    parts = [_part(each, now) for each in telling[:PARTS]]
    if rest := telling[PARTS:]:
        named = line(", ".join(sorted({f"{each.alert.rule} {each.alert.subject}".strip() for each in rest})))
        parts.append(Part(f"{len(rest)} more alerts", [named], [Link("Look", "/dashboard")]))
    return Message(app, now, parts) if parts else None


def test_message(app: str, now: datetime) -> Message:
    """What tells whether messages arrive."""
    return Message(
        app, now, [Part("A test: alerts arrive here", ["Nothing is wrong."], [Link("Look", "/dashboard")], good=True)]
    )


def stopped_message(app: str, since: datetime, now: datetime) -> Message:
    """What is told while no tick comes, by somebody else than a tick."""
    lines = [
        f"The last tick was at {clock(since)}, {duration(_seconds(since, now))} ago. No job runs until they come back.",
        "Look at what triggers them: your cron, its log, its secret.",
    ]
    return Message(app, now, [Part("Ticks have stopped", lines, [Link("Look", "/dashboard")])])


def _part(judged: Judged, now: datetime) -> Part:
    alert = judged.alert
    if judged.tells == "recovered":
        return _recovered(alert, now)
    words = {"dead": _dead_words, "failing": _failing_words, "backlog": _backlog_words, "missed": _missed_words}
    if alert.rule in words:
        part = words[alert.rule](alert)
        lasts = [f"Since {clock(alert.since)}, {duration(_seconds(alert.since, now))} ago."]
        return replace(part, lines=part.lines + lasts) if judged.tells == "lasts" else part
    return _silent_words(alert) if alert.subject else _gap_words(alert)


def _dead_words(alert: Alert) -> Part:
    kinds, others = alert.details["kinds"], alert.details["others"]
    count = f"{alert.untold // 100 * 100:,}+" if alert.details["more"] else f"{alert.untold:,}"
    further = "more " if alert.is_told else ""
    title = f"{name(alert.subject)}: {count} {further}{'job' if count == '1' else 'jobs'} died"
    lines = [_kind(kind) for kind in kinds]
    lines += [f"and {others} other kinds of error"] if others > 0 else []
    lines += [f"{alert.count:,} since {clock(alert.since)}"] if further else [f"Since {clock(alert.since)}"]
    return Part(title, lines, _dead_links(alert.subject, kinds))


def _kind(kind: Row) -> str:
    error = line(kind["last_error"] or "no error")
    return f"{kind['count']:,} times {error}" if kind["count"] > 1 else error


def _dead_links(type: str, kinds: Sequence[Row]) -> list[Link]:
    """A replay for each kind that a link may name, of what will have died of it by then; and where to look."""
    replays = [
        Link(
            f"Replay the {kind['count']:,}" if len(kinds) > 1 else "Replay",
            replay={"type": type, "fingerprint": kind["fingerprint"]},
        )
        for kind in kinds
        if kind["clean"]
    ]
    alone = len(kinds) == 1 and kinds[0]["count"] == 1
    return [*replays, Link("Look", f"/dashboard/jobs/{kinds[0]['last_id']}" if alone else "/dashboard/dead")]


def _failing_words(alert: Alert) -> Part:
    attempts = alert.details["attempts"]
    share = f"{100 * alert.count / attempts:.0f} %"
    lines = [f"{alert.count:,} of its {attempts:,} attempts in the last 15 minutes"]
    lines += [line(alert.details["last_error"])] if alert.details["last_error"] else []
    path = f"/dashboard/jobs?type={quote(alert.subject, safe='')}"
    return Part(f"{name(alert.subject)}: {share} of attempts fail", lines, [Link("Look", path)])


def _backlog_words(alert: Alert) -> Part:
    due = f"{number(alert.count, FULL)} {'job' if alert.count == 1 else 'jobs'} due"
    title = f"Falling behind: {due}, the oldest for {duration(alert.details['oldest'])}"
    return Part(title, ["The queue has not shrunk for five minutes."], [Link("Look", "/dashboard")])


def _missed_words(alert: Alert) -> Part:
    lines = [f"The last was for {clock(_instant(alert.details['window']))}"]
    lines += [line(alert.details["last_error"])] if alert.details["last_error"] else []
    links = [
        Link("The schedule", f"/dashboard/schedules/{quote(alert.subject, safe='')}"),
        Link("The last job", f"/dashboard/jobs/{alert.details['last_id']}"),
    ]
    return Part(f"{name(alert.subject)}: none of the last {alert.count} windows succeeded", lines, links)


def _silent_words(alert: Alert) -> Part:
    last, gap = clock(_instant(alert.details["last"])), duration(alert.details["gap"])
    lines = [f"It came every {gap}, and last at {last}. Other triggers still tick."]
    return Part(f"The trigger {name(alert.subject)} has stopped", lines, [Link("Look", "/dashboard/ticks")])


def _gap_words(alert: Alert) -> Part:
    since, until = clock(alert.since), clock(alert.seen_at)
    if since[:10] == until[:10]:
        until = until[11:]
    took = duration(_seconds(alert.since, alert.seen_at))
    lines = [f"For {took}. Ticks are back, by {name(alert.details['by'])}; what is due runs now."]
    return Part(
        f"No tick from {since.removesuffix(' UTC')} to {until}", lines, [Link("Look", "/dashboard/ticks")], good=True
    )


def _recovered(alert: Alert, now: datetime) -> Part:
    known = alert.rule in ("dead", "failing") or "by" in alert.details
    took = _seconds(alert.since, alert.seen_at if known else now)
    after = f"Recovered after {duration(took)}" if took >= 1 else "Recovered"
    path = {"dead": "/dashboard/dead", "stopped": "/dashboard/ticks"}.get(alert.rule, "/dashboard")
    return Part(f"{after}: {_good_news(alert)}", [], [Link("Look", path)], good=True)


def _good_news(alert: Alert) -> str:
    subject = name(alert.subject)
    match alert.rule:
        case "dead":
            return f"no more jobs of {subject} die; {alert.count:,} did, look at what is still dead"
        case "failing":
            return f"attempts of {subject} succeed again"
        case "backlog":
            return "the queue has caught up"
        case "missed":
            return f"a window of {subject} succeeded"
        case _ if subject := alert.subject:
            return f"the trigger {name(subject)} ticks again"
        case _:
            by = alert.details.get("by")
            return f"ticks are back, by {name(by)}" if by else "ticks are back"


def name(text: str) -> str:
    """A type, a schedule or a trigger as a message shows it, whatever somebody has called it."""
    return line(text, 100) or "(no name)"


def line(text: str, most: int = LONGEST_LINE) -> str:
    """A text on one line, with what cannot be shown left out, and cut."""
    plain = "".join(each if each.isprintable() else " " for each in text[: 4 * most])
    joined = " ".join(plain.split())
    return joined if len(joined) <= most else f"{joined[: most - 1]}…"


def number(count: int, most: int) -> str:
    """A count that ends somewhere.

    >>> number(1240, 10_000), number(10_001, 10_000)
    ('1,240', '10,000+')
    """
    return f"{most:,}+" if count > most else f"{count:,}"


def clock(at: datetime) -> str:
    """An instant as messages show it.

    >>> clock(datetime(2026, 3, 1, 2, 14, tzinfo=UTC))
    '2026-03-01 02:14 UTC'
    """
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def duration(seconds: float) -> str:
    """Seconds in the two largest units that matter.

    >>> duration(48.2), duration(840), duration(7500), duration(200_000)
    ('48 s', '14 min', '2 h 5 min', '2 d 7 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    return " ".join(f"{count} {unit}" for count, unit in parts[0 if days else 1 : 2 if days else 3] if count)


def _instant(value: str | datetime) -> datetime:
    """An instant that may have been kept as JSON."""
    return datetime.fromisoformat(value) if isinstance(value, str) else value
