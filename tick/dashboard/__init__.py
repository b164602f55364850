"""The dashboard: what is going on, and the one button that helps."""

from __future__ import annotations

from functools import cached_property

from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tick.api import Door


class Dashboard:
    """What is served under /dashboard. Its pages are imported with the first request for one, since a tick needs none."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def routes(self) -> list[BaseRoute]:
        return [Route("/dashboard", self), Route("/dashboard/{page:path}", self)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._pages(scope, receive, send)

    @cached_property
    def _pages(self) -> ASGIApp:
        from tick.dashboard.pages import Pages

        return Pages(self.door)
