"""The dashboard: what is going on, and the one button that helps."""

from __future__ import annotations

from functools import cached_property

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tick.api import Door


class Dashboard:
    """What is served under /dashboard. The pages are imported with the first request for one: a tick needs none."""

    def __init__(self, door: Door) -> None:
        self.door = door

    def routes(self) -> list[BaseRoute]:
        return [
            Route("/", self.root, methods=["GET"]),
            Route("/dashboard", self),
            Route("/dashboard/{page:path}", self),
        ]

    async def root(self, _: Request) -> Response:
        """On to the dashboard, when somebody can log in to it."""
        from tick.dashboard.sessions import can_open

        if not can_open(self.door.settings):
            raise HTTPException(404)
        return RedirectResponse("/dashboard", 303)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._pages(scope, receive, send)

    @cached_property
    def _pages(self) -> ASGIApp:
        from tick.dashboard.pages import Pages

        return Pages(self.door)
