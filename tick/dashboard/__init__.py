"""The dashboard: what is going on, and the one button that helps."""

from __future__ import annotations

from starlette.routing import BaseRoute

from tick.api import Door


class Dashboard:
    """What is served under /dashboard."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def routes(self) -> list[BaseRoute]:
        return []
