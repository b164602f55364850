"""The doctor: finds what will bite before it does, in the project, its environment and its database."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from tick.doctor.examination import examine
from tick.doctor.findings import CHECKS, ERROR, Finding
from tick.doctor.printing import show
from tick.doctor.subject import Project

__all__ = ["CHECKS", "Finding", "Project", "examine", "run"]


def run(options: argparse.Namespace) -> int:
    """Say what is wrong with the project, its settings and its database, and how to mend it."""
    project = Project(start=Path.cwd())
    examination = asyncio.run(examine(project, offline=options.offline))
    show(examination, as_json=options.json)
    return int(any(finding.level == ERROR for finding in examination.findings))
