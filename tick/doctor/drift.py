"""Whether the schema is what the migrations make: they are applied to a scratch schema, compared, and rolled back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import SequenceMatcher
from typing import Any

import psycopg
from psycopg import AsyncConnection
from psycopg.rows import tuple_row

from tick import database
from tick.doctor.findings import Finding, found

SCRATCH = "tick_doctor_scratch"
_PATIENCE = "select set_config('search_path', '', true), set_config('statement_timeout', '20s', true)"

Objects = dict[tuple[str, str], str]


async def look(connection: AsyncConnection[Any], schema: str) -> list[Finding]:
    """What the migrations would have made and is missing, or different. What is there besides is nobody's trouble."""
    try:
        expected, actual = await _both(connection, schema)
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.ReadOnlySqlTransaction) as error:
        fix = "run `tick doctor` once on the primary, with the role that migrates"
        return [found("schema-uncompared", f"schema {schema}", database.one_line(error), fix)]
    return list(compare(expected, actual, schema))


async def _both(connection: AsyncConnection[Any], schema: str) -> tuple[Objects, Objects]:
    async with connection.transaction(force_rollback=True):
        await connection.execute(_PATIENCE)
        for migration in database.migrations():
            await connection.execute(migration.body(SCRATCH).encode())
        return await _objects(connection, SCRATCH), await _objects(connection, schema)


async def _objects(connection: AsyncConnection[Any], schema: str) -> Objects:
    """Every object of a schema, its definition written as if that were called tick."""
    statement = database.statements("doctor_checks")["objects"]
    rows = await connection.cursor(row_factory=tuple_row).execute(statement, {"schema": schema})
    own = re.compile(rf'(?<!\w)"?{re.escape(schema)}"?\.')
    return {(kind, own.sub("tick.", name)): own.sub("tick.", definition) async for kind, name, definition in rows}


def compare(expected: Objects, actual: Objects, schema: str) -> Iterator[Finding]:
    """A finding for each object that is missing or different."""
    for (kind, name), definition in expected.items():
        there = actual.get((kind, name))
        if there is None or not _same(kind, there, definition):
            what = "missing" if there is None else f"different: {_difference(there, definition)}"
            fix = f"restore it: {_excerpt(definition)} (`tick migrate --sql` prints the whole of it)"
            yield found("schema-drift", f"schema {schema}", f"the {kind} {name} is {what}", fix)


def _same(kind: str, actual: str, expected: str) -> bool:
    """Whether two definitions are. Postgres prints a check that was dumped and restored with other parentheses."""
    if kind == "constraint":
        actual, expected = (re.sub(r"[()\s]", "", definition) for definition in (actual, expected))
    return actual == expected


def _difference(actual: str, expected: str) -> str:
    """Where two definitions begin to differ."""
    match = SequenceMatcher(None, actual[:2000], expected[:2000], autojunk=False).find_longest_match()
    start = match.size if match.a == match.b == 0 else 0
    start = max(0, start - 15)
    return f'"{_excerpt(actual[start:], 60)}" instead of "{_excerpt(expected[start:], 60)}"'


def _excerpt(text: str, most: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"
