"""chancy's job, in a module of its own: its workers import jobs by name, its default ones in another process."""

from __future__ import annotations

from typing import Any

from protocol import Handled  # type: ignore[import-not-found]

handled = Handled(0)
"""Counts the jobs of a worker that runs them in its own process."""


async def send_receipt(**about: Any) -> None:
    await handled.handle(**about)
