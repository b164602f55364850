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
LOST = "this was masked, and it cannot be told which value it stands for: write the value"

logger = logging.getLogger("tick")


async def ask(desk: Desk) -> Response:
    """The payload in a form, its secrets masked."""
    job = await _editable(desk)
    return _form(desk, job, _written(masking.mask(job["payload"])))


async def save(desk: Desk) -> Response:
    """Replay the job with another payload; or the form once more, with what is wrong with it."""
    job = await _editable(desk)
    text = desk.form.get("payload", "")
    if desk.form.get("digest") != job["digest"]:
        return _form(desk, job, text, ["somebody has changed the payload since you began: what is below is yours"])
    payload, problems = _read(desk, job, text)
    if problems:
        return _form(desk, job, text, problems)
    new = {"id": job["id"], "payload": payloads.encode(job["type"], payload).decode(), "digest": job["digest"]}
    (changed,) = await desk.change(Statement("replay_with", new, "dashboard"))
    if not changed:
        return _form(desk, job, text, ["somebody was faster: the job has changed meanwhile, and nothing was written"])
    logger.info("dashboard: job %d replayed with another payload by %s", job["id"], desk.who)
    return desk.go(f"/dashboard/jobs/{job['id']}", "It was replayed with the new payload: it is pending now.")


async def _editable(desk: Desk) -> Row:
    """The job, if its payload may be changed. Raises Refusal."""
    id = job_id(desk)
    (jobs,) = await desk.read(Statement("payload", {"id": id}, "dashboard"))
    if not jobs:
        raise no_such_job(id)
    if jobs[0]["status"] not in EDITABLE:
        refusal = InvalidTransition(id, jobs[0]["status"], "edited and replayed", " or ".join(EDITABLE))
        raise Refusal(409, "Not now", f"Nothing was changed: {refusal}.")
    return jobs[0]


def _form(desk: Desk, job: Row, text: str, problems: list[str] | None = None) -> Response:
    handler = desk.registry.get(job["type"]) if job["type"] in desk.registry else None
    return desk.page(
        "job_edit.html",
        job=job,
        text=text,
        problems=problems or [],
        is_masked=masking.mask(job["payload"]) != job["payload"],
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
    payload = restored(given, masking.mask(job["payload"]), job["payload"])
    problems = [f"{path}: {LOST}" for path in masked(payload) if path not in set(masked(job["payload"]))]
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
    if given == shown:
        return real
    if isinstance(given, dict) and isinstance(shown, dict):
        # Names may be masked too; unless two of them look alike then, they are still in the same order.
        names = dict(zip(shown, real, strict=len(shown) == len(real)))
        return {
            names.get(name, name): restored(value, shown[name], real[names[name]]) if name in names else value
            for name, value in given.items()
        }
    if isinstance(given, list) and isinstance(shown, list):
        return [_restored_item(item, place, shown, real) for place, item in enumerate(given)]
    return given


def _restored_item(item: Any, place: int, shown: list[Any], real: list[Any]) -> Any:
    """The real item behind one that was shown: the one at its place, or the only one that looks like it."""
    if place < len(shown) and shown[place] == item:
        return real[place]
    alike = [each for seen, each in zip(shown, real, strict=True) if seen == item]
    return alike[0] if alike and all(each == alike[0] for each in alike) else item


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
    return json.dumps(payload, indent=2, ensure_ascii=False)


ROUTES = [("/dashboard/jobs/{id}/edit", ["GET"], ask), ("/dashboard/jobs/{id}/edit", ["POST"], save)]
