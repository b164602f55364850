"""The application: signups, and tick's own /tick and /health beside them, so that one deployment is enough."""

import html
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from tick.web import create_app, serve

import db
from jobs import send_welcome_email

PAGE = """<!doctype html><meta charset="utf-8"><title>Saas</title>
<h1>Saas</h1><p>{}</p>
<form method="post" action="/signup">
<input name="email" type="email" placeholder="you@example.com" required>
<input name="name" placeholder="Your name" required>
<button>Sign up</button>
</form>"""


async def page(_request: Request) -> Response:
    return HTMLResponse(PAGE.format("Sign up, and see what happens."))


async def signup(request: Request) -> Response:
    """201 for a new user, 409 for an e-mail that is taken, 422 for what is no e-mail and name."""
    fields = await submitted(request)
    email, name = (str(fields.get(field, "")).strip() for field in ("email", "name"))
    if not re.fullmatch(r"[^@\s<>,]+@[^@\s<>,]+\.[^@\s<>,]+", email) or not name or not name.isprintable():
        return answer(request, 422, "An e-mail address and a name, please.")
    if await create_user(email.lower(), name) is None:
        return answer(request, 409, "This e-mail address has signed up already.")
    return answer(request, 201, f"Welcome, {name}. You have mail.")


async def create_user(email: str, name: str) -> int | None:
    """Insert the user and enqueue the welcome e-mail: both or neither. None when the address is taken.

    This is the point of a queue in your own database: there is no user without a welcome e-mail because the queue was
    down, and no e-mail to somebody whose signup was rolled back.
    """
    async with await db.connect_async() as connection:
        cursor = await connection.execute(
            "insert into users (email, name) values (%s, %s) on conflict (email) do nothing returning id",
            [email, name],
        )
        user = await cursor.fetchone()
        if user is None:
            return None
        await send_welcome_email.enqueue(connection, user_id=user.id)
        return int(user.id)


async def submitted(request: Request) -> dict[str, object]:
    """The fields of a JSON object or of a form; none when it is neither."""
    body = await request.body()
    if not request.headers.get("content-type", "").startswith("application/json"):
        return dict(parse_qsl(body.decode("utf-8", "replace")))
    try:
        fields = json.loads(body)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def answer(request: Request, status: int, text: str) -> Response:
    if request.headers.get("content-type", "").startswith("application/json"):
        return JSONResponse({"message": text}, status)
    return HTMLResponse(PAGE.format(html.escape(text)), status)


ticks = create_app()


@asynccontextmanager
async def lifespan(_app: Starlette) -> AsyncIterator[None]:
    # Starlette runs the lifespan of the outer application only, and tick checks its settings and handlers in its own.
    async with ticks.router.lifespan_context(ticks):
        yield


app = Starlette(
    routes=[Route("/", page), Route("/signup", signup, methods=["POST"]), Mount("/", ticks)],
    lifespan=lifespan,
)

if __name__ == "__main__":
    serve(app, "127.0.0.1", 8000)
