"""The description of the API: it is valid, it says what is served, and what is served is what it says."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import uvicorn

import tick as public
from tests.factories import a_job, wait_until
from tick import bodies, handlers, refusals, web
from tick.api import OPERATIONS, Api
from tick.bodies import JobToEnqueue
from tick.handlers import registry
from tick.options import Options

KEY = "tick_env_" + "k" * 43


@contextmanager
def serving(app) -> Iterator[str]:
    """A real server on a port of its own choice, and where it is."""
    running = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, lifespan="off", log_level="critical", ws="none")
    )
    thread = threading.Thread(target=running.run)
    thread.start()
    wait_until(lambda: running.started)
    yield "http://{}:{}".format(*running.servers[0].sockets[0].getsockname())
    running.should_exit = True
    thread.join(10)


@pytest.fixture
def base(settings, conn, empty_registry) -> Iterator[str]:
    """Where a site is, with a handler and a job of every status."""

    @public.job
    async def greet(name: str = "") -> None: ...

    for status in ("pending", "running", "done", "dead", "cancelled"):
        a_job(conn, "greet", status, payload={"name": "Ada"})
    changed = replace(settings, api_keys=(f"me:admin:{KEY}",), api_rate="1000000/minute")
    with serving(web.create_app(changed, registry)) as base:
        yield base


@pytest.fixture
def document(base) -> dict:
    """What anybody is served."""
    response = httpx.get(f"{base}/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    return response.json()


class TestTheDocument:
    def test_has_every_operation_and_no_other(self, document):
        described = {
            (method.upper(), path): operation["operationId"]
            for path, methods in document["paths"].items()
            for method, operation in methods.items()
        }
        assert described == {(each.method, each.path): each.name for each in OPERATIONS}
        for name in described.values():
            assert getattr(Api, name).__doc__

    def test_points_nowhere_but_into_itself(self, document):
        references = set(re.findall(r'"\$ref": "([^"]*)"', json.dumps(document)))
        assert references
        for reference in references:
            found = document
            for part in reference.removeprefix("#/").split("/"):
                found = found[part]

    def test_names_every_problem_where_it_may_come(self, document):
        told = set()
        for methods in document["paths"].values():
            for operation in methods.values():
                for status, response in operation["responses"].items():
                    content = response.get("content", {}).get("application/problem+json")
                    if content:
                        types = content["schema"]["allOf"][1]["properties"]["type"]["enum"]
                        statuses = {kind.status for kind in refusals.KINDS.values() if kind.type in types}
                        assert statuses <= {int(status)}
                        told |= set(types)
        assert told == {kind.type for kind in refusals.KINDS.values()} | {"about:blank"}

    def test_publishes_how_long_answers_are_kept(self, document):
        headers = {each["name"]: each for each in document["paths"]["/jobs"]["post"]["parameters"]}
        assert "24 hours" in headers["Idempotency-Key"]["description"]

    def test_says_which_scope_each_operation_takes(self, document):
        for each in OPERATIONS:
            described = document["paths"][each.path][each.method.lower()]
            assert described["security"] == [{"key": [each.scope]}]

    def test_shows_examples_that_are_taken(self, base, document):
        for path, methods in document["paths"].items():
            for method, operation in methods.items():
                if "requestBody" in operation:
                    examples = operation["requestBody"]["content"]["application/json"]["examples"]
                    assert len(examples) >= 2
                    for each in examples.values():
                        sent = httpx.request(
                            method, base + path, json=each["value"], headers={"authorization": f"Bearer {KEY}"}
                        )
                        assert sent.is_success, sent.text

    def test_every_option_of_a_job_can_be_given(self):
        assert set(JobToEnqueue.__struct_fields__) == {"type", "payload", *Options.__slots__}

    def test_the_columns_of_a_job_are_those_that_are_read(self):
        assert set(bodies.ListedJob.__struct_fields__) < set(bodies.Job.__struct_fields__)


class TestTheGuideOfHandlers:
    """docs/handlers.md has every option and every member of the context, since this is where people look for them."""

    TEXT = (Path(__file__).parents[1] / "docs" / "handlers.md").read_text()

    def rows(self, head: str) -> list[str]:
        """The first cells of the table that has this head."""
        table = self.TEXT[self.TEXT.index(f"| {head} | |\n") :].partition("\n\n")[0]
        return [line.split(" | ")[0].removeprefix("| ") for line in table.splitlines()[2:]]

    def test_has_every_option_of_a_job(self):
        assert sorted(cell.strip("`") for cell in self.rows("option")) == sorted(Options.__slots__)

    def test_has_every_member_of_the_context(self):
        internal = {"follow_ups", "said"}
        members = {name for name in dir(public.Context) if not name.startswith("_")} - internal
        assert set(re.findall(r"ctx\.(\w+)", " ".join(self.rows("member")))) == members

    def test_has_every_option_of_a_handler(self):
        (example,) = re.findall(r"^@tick\.job\(\n(.*?)^\)", self.TEXT, re.MULTILINE | re.DOTALL)
        options = inspect.signature(handlers._register).parameters.keys() - {"function"}
        assert set(re.findall(r"^    (\w+)=", example, re.MULTILINE)) == options


class TestWhatIsServed:
    def test_is_what_is_described(self, base, tmp_path):
        """Schemathesis sends what the description allows and what it does not, from a seed that stays."""
        (tmp_path / "schemathesis.toml").write_text(CONFIGURATION)
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(tmp_path / "schemathesis.toml")),
            *("run", f"{base}/openapi.json", "--header", f"Authorization: Bearer {KEY}"),
            *(
                "--phases",
                "examples,coverage,fuzzing,stateful",
                "--max-examples",
                "12",
                "--seed",
                "20260301",
            ),
            *("--continue-on-failure", "--no-color", "--generation-database", "none"),
        ]
        ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert ran.returncode == 0, ran.stdout[-8000:] + ran.stderr[-2000:]


# What types there are and what their payloads hold, and which cursors a page gave, no description can tell; and to a JSON
# Schema 7.0 is an integer.
CONFIGURATION = """
[[operations]]
include-name = ["POST /jobs", "GET /jobs", "POST /jobs/replay"]
checks.positive_data_acceptance.enabled = false
"""
