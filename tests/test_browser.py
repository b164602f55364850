"""The dashboard in a real browser: Debian's Chromium, two sizes, light and dark; axe-core judges every page.

`TICK_WRITE_SCREENSHOTS=1` has the pages photographed for docs/screenshots.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import pytest
import uvicorn

from tests import story
from tests.factories import a_job, job, tick, wait_until
from tick import web
from tick.config import Settings
from tick.handlers import registry

pytestmark = [pytest.mark.usefixtures("empty_registry"), pytest.mark.xdist_group("browser")]

HERE = Path(__file__).parent
SCREENSHOTS = HERE.parent / "docs" / "screenshots"
AXE = HERE / "browser" / "node_modules" / "axe-core" / "axe.min.js"
PASSWORD = "correct-horse-battery-staple"
SIZES = {"desktop": {"width": 1280, "height": 900}, "phone": {"width": 390, "height": 844}}
SCHEMES = ("light", "dark")
HIGHEST = 1400
"""Pixels of a photographed page."""
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>"


def lacks(what: str) -> None:
    """Skip, or fail where the browser is required."""
    if os.environ.get("TICK_TEST_BROWSER") == "required":
        pytest.fail(f"{what}, and TICK_TEST_BROWSER says that the tests in a browser may not be skipped")
    pytest.skip(what)


@pytest.fixture(scope="module")
def chromium():
    sync_api = pytest.importorskip("playwright.sync_api")
    path = shutil.which("chromium") or lacks("there is no chromium")
    if not AXE.exists():
        lacks("there is no axe-core: npm install --prefix tests/browser")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def served(settings: Settings):
    """The application behind a real server; its URL."""
    config = uvicorn.Config(web.create_app(settings, registry), port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(10)


def elsewhere(work):
    """What the work returns, done in a thread: Playwright keeps a loop running in this one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


class Shop:
    """A deployment with a week behind it, and what somebody sees who opens its dashboard."""

    def __init__(self, url: str, browser, conn, settings: Settings, ids: dict[str, int]) -> None:
        self.url, self.browser, self.conn, self.settings, self.ids = url, browser, conn, settings, ids
        self.complaints: list[str] = []

    def open(
        self, size: str = "desktop", scheme: str = "light", path: str = "", *, log_in: bool = True, script: bool = True
    ):
        context = self.browser.new_context(
            viewport=SIZES[size], color_scheme=scheme, base_url=self.url, java_script_enabled=script,
            has_touch=size == "phone", is_mobile=size == "phone", locale="en-GB", timezone_id="Europe/Paris",
        )  # fmt: skip
        context.set_default_timeout(15_000)
        page = context.new_page()
        page.on(
            "console",
            lambda said: said.type in ("error", "warning") and self.complaints.append(f"{page.url}: {said.text}"),
        )
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.on("dialog", lambda dialog: (self.complaints.append(f"a dialog: {dialog.message}"), dialog.dismiss()))
        if log_in:
            self.log_in(page)
        if path:
            page.goto(path)
        return page

    def log_in(self, page) -> None:
        page.goto("/dashboard")
        page.get_by_label("Password").fill(PASSWORD)
        page.get_by_role("button", name="Log in").click()
        page.wait_for_url(re.compile(r"/dashboard/?$"))

    def tick(self) -> None:
        elsewhere(lambda: tick(self.settings))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    from dataclasses import replace

    return replace(settings, dashboard_password=PASSWORD, secrets=("another-long-secret",))


@pytest.fixture
def shop(chromium, conn, settings):
    story.handlers()
    ids = elsewhere(lambda: story.write(conn, settings))
    with served(settings) as url:
        shop = Shop(url, chromium, conn, settings, ids)
        yield shop
        for context in chromium.contexts:
            context.close()
    assert shop.complaints == []


def wait_for_charts(page) -> None:
    """All else is there once a page has loaded; what charts show is fetched."""
    for plot in page.locator("[data-plot]").all():
        plot.locator("canvas").wait_for(state="attached")


def violations(page) -> list[str]:
    """What axe-core calls serious or critical, after WCAG 2.2 A and AA."""
    page.evaluate(AXE.read_text())
    rules = {
        "runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
        "resultTypes": ["violations"],
    }
    found = page.evaluate(f"axe.run(document, {json.dumps(rules)})")["violations"]
    return [
        f"{v['id']}: {node['html'][:120]}"
        for v in found
        if v["impact"] in ("serious", "critical")
        for node in v["nodes"]
    ]


def overflow(page) -> int:
    """By how many pixels the page is wider than its window."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")


def photograph(page, name: str, size: str, scheme: str) -> None:
    """For the guides: light on a desktop and dark on a phone, as much as fits a sheet."""
    if os.environ.get("TICK_WRITE_SCREENSHOTS") and (size, scheme) in (("desktop", "light"), ("phone", "dark")):
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        height = min(HIGHEST, page.evaluate("document.documentElement.scrollHeight"))
        page.set_viewport_size({"width": SIZES[size]["width"], "height": height})
        page.screenshot(path=SCREENSHOTS / f"{name}-{size}-{scheme}.png")
        page.set_viewport_size(SIZES[size])


PAGES = {
    "now": "/dashboard",
    "jobs": "/dashboard/jobs",
    "job": "/dashboard/jobs/{CardDeclined}",
    "edit": "/dashboard/jobs/{InvalidPayload}/edit",
    "dead": "/dashboard/dead",
    "schedules": "/dashboard/schedules",
    "schedule": "/dashboard/schedules/nightly-report",
    "ticks": "/dashboard/ticks",
}


def test_every_page_is_accessible_fits_its_window_and_says_nothing_on_the_console(shop):
    for size, scheme in product(SIZES, SCHEMES):
        page = shop.open(size, scheme, log_in=False, path="/dashboard/login")
        assert (size, scheme, violations(page)) == (size, scheme, [])
        photograph(page, "login", size, scheme)
        shop.log_in(page)
        for name, path in PAGES.items():
            page.goto(path.format(**shop.ids))
            wait_for_charts(page)
            assert page.locator("h1").count() == 1, name
            assert (name, size, scheme, violations(page)) == (name, size, scheme, [])
            assert (name, size, overflow(page)) == (name, size, 0)
            photograph(page, name, size, scheme)
        page.context.close()


@pytest.mark.parametrize(("size", "scheme"), [("desktop", "light"), ("phone", "dark")])
def test_a_dead_job_is_found_read_mended_replayed_and_seen_done(shop, size, scheme):
    page = shop.open(size, scheme, "/dashboard/dead")
    group = (
        page.get_by_role("row")
        .filter(has_text="InvalidPayload")
        .or_(page.get_by_role("article").filter(has_text="InvalidPayload"))
    )
    group.get_by_role("link", name=re.compile("jobs|show", re.IGNORECASE)).first.click()
    page.get_by_role("link", name=f"{shop.ids['InvalidPayload']}").first.click()
    page.get_by_text("Expected `float`, got `str`").first.wait_for()
    page.get_by_role("link", name=re.compile("Edit")).click()
    payload = page.get_by_label("Payload")
    given = json.loads(payload.input_value())
    payload.fill(json.dumps(given | {"amount": "nothing"}))
    page.get_by_role("button", name=re.compile("replay", re.IGNORECASE)).click()
    page.get_by_text("Expected `float`").first.wait_for()
    # Chromium tells of every answer that is no success.
    shop.complaints = [said for said in shop.complaints if "422" not in said]
    page.get_by_label("Payload").fill(json.dumps(given | {"amount": 12.5}))
    page.get_by_role("button", name=re.compile("replay", re.IGNORECASE)).click()
    page.get_by_text("pending").first.wait_for()
    shop.tick()
    page.reload()
    page.get_by_text("done", exact=True).first.wait_for()
    row = job(shop.conn, shop.ids["InvalidPayload"])
    assert (row["status"], row["result"], row["payload"]["card_token"]) == ("done", {"charged": 12.5}, "tok_4711")


def test_a_schedule_is_paused_and_resumed(shop):
    page = shop.open(path="/dashboard/schedules/nightly-report")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    assert shop.conn.execute(
        "select paused, paused_by from tick.schedules where name = 'nightly-report'"
    ).fetchone() == (True, "password")
    page.goto("/dashboard/schedules")
    page.get_by_text("paused").first.wait_for()
    page.goto("/dashboard/schedules/nightly-report")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()
    assert shop.conn.execute("select paused from tick.schedules where name = 'nightly-report'").fetchone() == (False,)


@pytest.mark.parametrize("size", SIZES)
def test_all_of_a_kind_of_dead_jobs_are_replayed_after_a_look_at_what_that_is(shop, size):
    page = shop.open(size, path="/dashboard/dead")
    group = (
        page.get_by_role("row")
        .filter(has_text="CardDeclined")
        .or_(page.get_by_role("article").filter(has_text="CardDeclined"))
    )
    group.get_by_role("link", name=re.compile("Retry all")).or_(
        group.get_by_role("button", name=re.compile("Retry all"))
    ).first.click()
    page.get_by_text("23").first.wait_for()
    before = shop.conn.execute("select count(*) from tick.jobs where status = 'dead'").fetchone()[0]
    photograph(page, "bulk", size, "light")
    assert violations(page) == []
    page.get_by_role("button", name=re.compile("Replay")).click()
    page.wait_for_load_state("networkidle")
    after = shop.conn.execute("select count(*) from tick.jobs where status = 'dead'").fetchone()[0]
    assert before - after == 23


def test_without_javascript_it_works_too(shop):
    page = shop.open(script=False, path="/dashboard/schedules/nightly-report")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    page.goto("/dashboard/dead")
    page.get_by_role("link", name=re.compile("Retry all")).or_(
        page.get_by_role("button", name=re.compile("Retry all"))
    ).first.click()
    page.get_by_role("button", name=re.compile("Replay")).click()
    page.wait_for_load_state()
    assert "CSRF" not in page.content()


def test_hostile_payloads_errors_and_names_are_text(shop):
    ids = [
        a_job(shop.conn, HOSTILE, "dead", payload={HOSTILE: HOSTILE}, key=HOSTILE, last_error=HOSTILE * 20_000, fingerprint=HOSTILE,
              errors=[{"attempt": 1, "at": "2026-11-21T00:00:00+00:00", "error": HOSTILE, "traceback": HOSTILE * 20_000}]),
        a_job(shop.conn, "🦄🔥 émoji", "dead", payload={"𝕏": "\u202eright to left"}, last_error="💥", fingerprint="💥"),
    ]  # fmt: skip
    page = shop.open()
    for path in (
        "/dashboard",
        "/dashboard/dead",
        "/dashboard/jobs?status=dead",
        *(f"/dashboard/jobs/{id}" for id in ids),
    ):
        assert page.goto(path).status == 200
        assert page.locator("img[src=x]").count() == 0
        assert (path, overflow(page)) == (path, 0)


LONG = "a_name_of_a_hundred_characters_" + "x" * 69


@pytest.fixture
def long_names(shop):
    """A job, a schedule, a tick, an alert and a type, each with a name as long as people may give them."""
    story_file = Path(shop.settings.schedules_path)
    story_file.write_text(f'{story.SCHEDULES}\n[schedules.{LONG}]\nevery = "15m"\ntype = "sync_crm"\n')
    shop.tick()
    conn = shop.conn
    conn.execute("update tick.ticks set trigger = %s where trigger = 'github'", [LONG])
    conn.execute("update tick.stats set type = %s where type = 'sync_crm'", [LONG])
    conn.execute(
        "insert into tick.alerts (rule, subject, since, seen_at, count, details) values"
        " ('missed', %s, now(), now(), 3, jsonb_build_object('last_error', %s::text))",
        [LONG, f"Boom: {LONG}"],
    )
    a_job(conn, LONG, run_at="-1 minute")
    a_job(conn, LONG, "running", progress={"done": 1, "total": 2, "note": LONG})
    return a_job(conn, LONG, "dead", key=LONG, schedule=LONG, payload={LONG: LONG}, last_error=LONG, fingerprint=LONG)


def test_long_names_do_not_widen_a_page(shop, long_names):
    (tick_id,) = shop.conn.execute("select id from tick.ticks where trigger = %s limit 1", [LONG]).fetchone()
    for size, scheme in (("phone", "light"), ("phone", "dark"), ("desktop", "light")):
        page = shop.open(size, scheme)
        for path in (
            "/dashboard",
            "/dashboard/jobs",
            "/dashboard/jobs?status=pending",
            f"/dashboard/jobs/{long_names}",
            f"/dashboard/jobs/{long_names}/edit",
            f"/dashboard/jobs/bulk?do=replay&id={long_names}",
            "/dashboard/dead",
            "/dashboard/schedules",
            f"/dashboard/schedules/{LONG}?at=02:30",
            "/dashboard/ticks",
            f"/dashboard/ticks?trigger={LONG}",
            f"/dashboard/ticks/{tick_id}",
        ):
            assert page.goto(path).status == 200
            wait_for_charts(page)
            assert (path, size, overflow(page)) == (path, size, 0)


def test_an_alert_tells_its_error_and_leads_to_its_subject(shop, long_names):
    page = shop.open()
    alerts = page.get_by_role("region", name="Open alerts")
    assert "Boom: a_name" in alerts.inner_text()
    dead = alerts.get_by_role("listitem").filter(has_text="charge_invoice")
    assert "card declined for invoice 4711" in dead.inner_text()
    assert dead.get_by_role("link").get_attribute("href").startswith("/dashboard/dead")
    alerts.get_by_role("link", name=LONG).click()
    page.get_by_role("heading", level=1, name=LONG).wait_for()


def place(page, text: str) -> float:
    """How far down the page a heading stands."""
    return page.get_by_role("heading", name=re.compile(f"^{text}")).bounding_box()["y"]


def test_on_a_phone_what_needs_somebody_stands_before_the_charts(shop):
    page = shop.open("phone")
    names = ("Open alerts", "Due, and no handler", "The last ticks", "Lately", "Running now")
    places = [place(page, name) for name in names]
    assert places == sorted(places)


def test_a_chart_leaves_no_room_beneath_it(shop):
    page = shop.open()
    page.locator(".uplot canvas").first.wait_for()
    for plot in page.locator(".plot").all():
        assert plot.bounding_box()["height"] == pytest.approx(224, abs=2)
    assert "in the time of Europe/Paris" in page.get_by_role("heading", name="Lately").inner_text()


def test_an_empty_database_says_once_what_to_do_and_draws_no_axes(chromium, conn, settings):
    with served(settings) as url:
        shop = Shop(url, chromium, conn, settings, {})
        page = shop.open("phone")
        page.wait_for_load_state("networkidle")
        said = page.locator("main").inner_text()
        assert page.locator(".uplot, .plot").count() == 0
        assert (said.count("CRON_SECRET"), said.count("No tick has come yet")) == (1, 0)
        assert violations(page) == []
        page.context.close()
    assert shop.complaints == []


def test_a_job_s_page_begins_with_its_error_and_its_payload_and_repeats_nothing(shop):
    page = shop.open("phone", path=f"/dashboard/jobs/{shop.ids['CardDeclined']}")
    places = [place(page, name) for name in ("Error", "Payload", "Story")]
    assert places == sorted(places)
    assert page.locator("details[open]").count() == 0
    story_of = page.get_by_role("region", name="Story")
    assert story_of.locator(".bad").count() == 1
    assert story_of.locator("summary").count() == 3
    same = a_job(shop.conn, "send_digest", "dead", last_error="no",
                 errors=[{"attempt": 1, "at": "2026-11-21T00:00:00+00:00", "error": "no", "traceback": "no\n"}])  # fmt: skip
    page.goto(f"/dashboard/jobs/{same}")
    assert page.locator("summary", has_text="Traceback").count() == 0
    page.goto(f"/dashboard/jobs/{same}/edit")
    page.get_by_role("heading", name="Its error").wait_for()


def test_a_job_that_the_next_tick_takes_is_not_offered_to_be_run_now(shop):
    due, later = a_job(shop.conn, "send_digest", run_at="-1 minute"), a_job(shop.conn, "send_digest", run_at="+1 hour")
    page = shop.open(path=f"/dashboard/jobs/{due}")
    page.get_by_text("It is due: the next tick takes it.").wait_for()
    assert page.get_by_role("button", name="Run now").count() == 0
    page.goto(f"/dashboard/jobs/{later}")
    page.get_by_role("button", name="Run now").wait_for()


def test_on_a_phone_the_list_of_jobs_comes_before_its_search(shop):
    page = shop.open("phone", path="/dashboard/jobs?status=dead")
    box = page.get_by_label("Text in payload or error")
    assert not box.is_visible()
    assert page.locator(".bar").bounding_box()["y"] < SIZES["phone"]["height"]
    assert page.locator(".segments").evaluate("it => it.scrollWidth - it.clientWidth") == 0
    page.locator(".search summary").click()
    box.fill("insufficient")
    page.get_by_role("button", name="Search").click()
    page.wait_for_url(re.compile("text=insufficient"))
    assert page.get_by_label("Text in payload or error").is_visible()
    page.get_by_role("link", name="charge_invoice").first.click()
    page.wait_for_url(re.compile(r"/dashboard/jobs/\d+$"))
    assert shop.open(path="/dashboard/jobs").get_by_label("Text in payload or error").is_visible()


def test_a_change_of_colours_and_a_page_that_is_not_there_lead_back_to_the_search(shop):
    page = shop.open(path="/dashboard/jobs?status=dead&type=charge_invoice")
    page.get_by_role("button", name=re.compile("Colours")).click()
    page.wait_for_url(re.compile("status=dead&type=charge_invoice"))
    shop.conn.execute("delete from tick.jobs where id = %s", [shop.ids["CardDeclined"]])
    page.locator(f"a[href='/dashboard/jobs/{shop.ids['CardDeclined']}']").first.click()
    page.get_by_role("link", name="Back").click()
    page.wait_for_url(re.compile("status=dead&type=charge_invoice"))
    shop.complaints = [said for said in shop.complaints if "404" not in said]


def test_on_a_phone_the_instant_to_explain_has_the_width_of_its_card(shop):
    page = shop.open("phone", path="/dashboard/schedules/nightly-report")
    assert page.get_by_label("An instant").bounding_box()["width"] > 300


def test_the_keyboard_reaches_what_the_mouse_does(shop):
    page = shop.open()
    page.keyboard.press("Tab")
    assert "skip" in page.evaluate("document.activeElement.textContent").lower()
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.closest('main') !== null || location.hash !== ''")
    reached = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        reached.add(
            page.evaluate(
                "(document.activeElement.textContent || document.activeElement.ariaLabel || '').trim().slice(0, 30)"
            )
        )
        outline = page.evaluate(
            "(s => s.outlineStyle !== 'none' || s.boxShadow !== 'none')(getComputedStyle(document.activeElement))"
        )
        assert outline or page.evaluate("document.activeElement === document.body"), reached
    assert len(reached) > 10


def test_the_charts_are_drawn_and_change_their_span(shop):
    page = shop.open()
    page.locator(".uplot canvas").first.wait_for()
    page.get_by_role("link", name=re.compile("week", re.IGNORECASE)).or_(
        page.get_by_role("button", name=re.compile("week", re.IGNORECASE))
    ).first.click()
    page.wait_for_load_state("networkidle")
    page.locator(".uplot canvas").first.wait_for()
