"""Telling what was found: in colours on a terminal, as plain text in a pipe, or as JSON."""

from __future__ import annotations

import json
import sys
from itertools import groupby

from tick.doctor.examination import Examination
from tick.doctor.findings import LEVELS, Finding
from tick.verdict import count

_COLOURS = {"error": "bold red", "warning": "bold yellow", "note": "bold cyan"}


def show(examination: Examination, *, as_json: bool) -> None:
    """Print an examination, the worst findings first."""
    if as_json:
        print(json.dumps([finding.as_dict() for finding in examination.findings], indent=2))
        return
    tell = _tell_in_colours if sys.stdout.isatty() else _tell
    for level, findings in groupby(examination.findings, key=lambda finding: finding.level):
        for finding in findings:
            tell(level, finding)
    print(summary(examination))


def summary(examination: Examination) -> str:
    """The last line: what was looked for, and how much was found."""
    looked = f"{examination.checks} checks" + ("" if examination.with_database else ", without the database")
    levels = [finding.level for finding in examination.findings]
    numbers = [count(levels.count(level), level) for level in LEVELS if level in levels]
    return f"{looked}: {', '.join(numbers) or 'nothing found'}"


def _lines(finding: Finding) -> list[tuple[str, str]]:
    return [("", finding.what), ("why: ", finding.why), ("fix: ", finding.fix)]


def _tell(level: str, finding: Finding) -> None:
    print(f"{level}: {finding.where} [{finding.code}]")
    for label, text in _lines(finding):
        print(f"  {label}{text}")
    print()


def _tell_in_colours(level: str, finding: Finding) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = Console()
    console.print(Text.assemble((level, _COLOURS[level]), " ", (finding.where, "bold"), (f"  {finding.code}", "dim")))
    for label, text in _lines(finding):
        console.print(Padding(Text.assemble((label, "dim"), text), (0, 0, 0, 2)))
    console.print()
