"""Edit a payload and replay: what was masked and is left alone stays what it is, and all that is wrong is told."""

from __future__ import annotations

import json
import logging
from inspect import Signature
from typing import Any

from starlette.responses import Response

from tick import masking, payloads
from tick.dashboard.desk import Desk, Refusal, Row
from tick.dashboard.story import job_id, no_such_job
from tick.database import Statement
from tick.errors import InvalidPayload, InvalidTransition
from tick.handlers import Handler, Registry
from tick.reading import JobReading

EDITABLE = ("dead", "cancelled")
LONGEST_INDENTED = 100_000
"""Characters up to which a payload is indented."""
LOST = "this was masked, and it cannot be told which value it stands for: write the value"

logger = logging.getLogger("tick")


async def ask(desk: Desk) -> Response:
    """The payload in a form, its secrets masked."""
    job = await _job(desk)
    if refusal := _refusal(job):
        raise Refusal(409, "Not now", f"Nothing was changed: {refusal}.")
    return _form(desk, job, _written(desk.mask(job["payload"])))


async def save(desk: Desk) -> Response:
    """Replay the job with another payload; or the form once more, with what is wrong with it."""
    job = await _job(desk)
    text = desk.form.get("payload", "")
    if refusal := _refusal(job):
        return _form(desk, job, text, [str(refusal)], 409)
    if desk.form.get("digest") != job["digest"]:
        return _form(desk, job, text, ["somebody has changed the payload since you began: what is below is yours"], 409)
    payload, problems = _read(desk, job, text)
    if problems:
        return _form(desk, job, text, problems)
    new = {"id": job["id"], "payload": payloads.encode(job["type"], payload).decode(), "digest": job["digest"]}
    (changed,) = await desk.change(Statement("replay_with", new, "dashboard"))
    if not changed:
        problem = "somebody was faster: the job has changed meanwhile, and nothing was written"
        return _form(desk, job, text, [problem], 409)
    logger.info("dashboard: job %d replayed with another payload by %s", job["id"], desk.who)
    return desk.go(f"/dashboard/jobs/{job['id']}", "It was replayed with the new payload: it is pending now.")


async def _job(desk: Desk) -> Row:
    """The job, as far as an edit needs it. Raises Refusal when there is none."""
    id = job_id(desk)
    (jobs,) = await desk.read(Statement("payload", {"id": id}, "dashboard"))
    if not jobs:
        raise no_such_job(id)
    return jobs[0]


def _refusal(job: Row) -> InvalidTransition | None:
    """Why the job's payload may not be changed, if it may not."""
    if job["status"] in EDITABLE:
        return None
    return InvalidTransition(job["id"], job["status"], "edited and replayed", " or ".join(EDITABLE))


def _form(desk: Desk, job: Row, text: str, problems: list[str] | None = None, code: int = 200) -> Response:
    handler = desk.registry.get(job["type"]) if job["type"] in desk.registry else None
    return desk.page(
        "job_edit.html",
        code=code,
        job=job,
        text=text,
        problems=problems or [],
        is_masked=desk.mask(job["payload"]) != job["payload"],
        mask=masking.MASK,
        signature=_signature(handler) if handler else None,
        rows=min(max(text.count("\n") + 2, 8), 30),
    )


class _Said(str):
    """An annotation that was written as a text, as it was written."""

    __slots__ = ()
    __repr__ = str.__str__


def _signature(handler: Handler[..., ..., Any]) -> str:
    """What the handler takes, as its function says it."""
    signature = handler.parameters.signature
    given = [
        each.replace(annotation=_Said(each.annotation)) if isinstance(each.annotation, str) else each
        for each in signature.parameters.values()
    ]
    return str(signature.replace(parameters=given, return_annotation=Signature.empty))


def _read(desk: Desk, job: Row, text: str) -> tuple[Any, list[str]]:
    """The payload that the text holds, with what was masked in it; and what is wrong with it."""
    try:
        given = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        return None, [f"it is not JSON: {error}" if str(error) else "it is not JSON"]
    if not isinstance(given, dict):
        return None, ['it is not a JSON object, such as {"user_id": 42}']
    try:
        payload = restored(given, desk.mask(job["payload"]), job["payload"])
        before = set(masked(job["payload"]))
        problems = [f"{path}: {LOST}" for path in masked(payload) if path not in before]
    except RecursionError:
        return None, ["it is nested too deeply"]
    return payload, problems or _problems(desk, job["type"], payload)


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number that JSON knows")


def _problems(desk: Desk, type: str, payload: dict[str, Any]) -> list[str]:
    """Why Postgres could not hold the payload, or the handler not take it, where this deployment has one."""
    try:
        payloads.encode(type, payload)
    except InvalidPayload as error:
        return [str(error)]
    return _misfits(desk.registry, type, payload) if type in desk.registry else []


def _misfits(registry: Registry, type: str, payload: dict[str, Any]) -> list[str]:
    """Everything about the payload that its handler would not take."""
    handler, reading = registry.get(type), JobReading(registry)
    try:
        handler.parameters.fit(payload)
    except InvalidPayload as error:
        reading.payload(handler, payload, "")
        told = [f"{each.path.removeprefix('payload.')}: {each.message}" for each in reading.violations]
        return told or [str(error)]
    except Exception as error:  # noqa: BLE001 - what a user's type raises when it is built
        return [f"it does not fit {type}: {error}"]
    return []


def restored(given: Any, shown: Any, real: Any) -> Any:
    """What was given, and where that is what was shown, the real value.

    In lists the items that were left as they were shown are found again wherever they are now.

    >>> restored({"user": 2, "token": "••••••"}, {"user": 1, "token": "••••••"}, {"user": 1, "token": "s3cret"})
    {'user': 2, 'token': 's3cret'}
    """
    if _exactly(given) == _exactly(shown):
        return real
    if isinstance(given, dict) and isinstance(shown, dict):
        return _restored_members(given, shown, real)
    if isinstance(given, list) and isinstance(shown, list):
        return _restored_items(given, shown, real)
    return given


def _restored_members(given: dict[str, Any], shown: dict[str, Any], real: dict[str, Any]) -> dict[str, Any]:
    """An object's members; where two of their names look alike, what was masked stays so, and is told."""
    if len(shown) != len(real):
        return given
    # Names may be masked too: they are still in the same order.
    names = dict(zip(shown, real, strict=True))
    return {
        names.get(name, name): restored(value, shown[name], real[names[name]]) if name in names else value
        for name, value in given.items()
    }


def _restored_items(given: list[Any], shown: list[Any], real: list[Any]) -> list[Any]:
    """A list's items: those that look like one item alone, wherever they are; of several, the one at the same place."""
    seen, wanted = [_exactly(item) for item in shown], [_exactly(item) for item in given]
    alike: dict[str, dict[str, Any]] = {}
    for look, item in zip(seen, real, strict=True):
        alike.setdefault(look, {})[_exactly(item)] = item

    def find(place: int, look: str) -> Any:
        found = alike.get(look, {})
        if len(found) == 1:
            return next(iter(found.values()))
        # Once the length has changed, who knows which of them has gone.
        is_there = len(given) == len(shown) and seen[place] == look
        return real[place] if is_there else given[place]

    return [find(place, look) for place, look in enumerate(wanted)]


def _exactly(value: Any) -> str:
    """What only the same JSON value has: 1, 1.0 and true are three."""
    return json.dumps(value, sort_keys=True)


def masked(value: Any, path: str = "") -> list[str]:
    """Where in a JSON value a mask stands for something."""
    if isinstance(value, str):
        return [path] if masking.MASK in value else []
    if isinstance(value, dict):
        members = [(f"{path}.{name}" if path else name, name, item) for name, item in value.items()]
        return [found for at, name, item in members for found in (masked(name, at) or masked(item, at))]
    if isinstance(value, list):
        return [at for place, item in enumerate(value) for at in masked(item, f"{path}[{place}]")]
    return []


def _written(payload: Any) -> str:
    """The payload as it is edited: indented, unless that would be mostly spaces."""
    text = json.dumps(payload, indent=2, ensure_ascii=False)
    return text if len(text) <= LONGEST_INDENTED else json.dumps(payload, ensure_ascii=False)


ROUTES = [("/dashboard/jobs/{id}/edit", ["GET"], ask), ("/dashboard/jobs/{id}/edit", ["POST"], save)]
