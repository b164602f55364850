"""/metrics, for Prometheus."""

from __future__ import annotations

from starlette.routing import Route

from .api import Door


class Metrics:
    """What is served of metrics."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def routes(self) -> list[Route]:
        return []
