"""What one Postgres carries, and what was tried to go past it: the processor time of a job, many ticks, many schemas.

    uv run python -m bench.scaling

`docs/scaling.md` says what follows from the figures. Processor time is what Linux has counted for the server's process
(/proc/PID/schedstat), so that it hardly depends on what else the machine does; elapsed time does.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch

import psycopg
from psycopg import sql

from tick import database, intake, processor, queue
from tick.config import Settings
from tick.handlers import Handler

from .dataset import TYPE, Bench, create
from .proxy import SPAWN
from .questions import Answer, Question, Server, Verdict, at_most
from .rounds import Contender, Sample, Series, alternate, shown
from .ticks import noop, noops
from .together import WRONG

BUDGET = 300.0
BULK = 500
IDLE = 10
"""Ticks with nothing to do, of which the median counts."""
PRODUCERS = 2
EVERY = 1.0
"""Seconds between the ticks of a process that ticks."""
FINISHED = 50_000
CREWS = (1, 2, 4)
AT_ONCE = 4
"""Schemas that tick at once."""
A_FEW = 100
"""Jobs in every fifth schema."""
NO_FILE = Path("no schedules file")
PAYLOAD = {"user_id": 1, "template": "weekly-report", "audience": "team"}
WAL = "select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint"
WAITED = (
    "select avg(extract(epoch from started_at - run_at)), max(extract(epoch from started_at - run_at)) from tick.jobs"
)
DONE = "select count(*) filter (where status = 'done'), count(*) from {}.jobs"
SIZE = """
select count(*) filter (where relkind = 'r'), count(*), sum(pg_relation_size(oid)) from pg_class
 where relnamespace = to_regnamespace('shop_1') and relkind in ('r', 'i', 'S')
"""


HANDLER: Handler[Any, Any, Any] = Handler(noop, TYPE)
REGISTRY = noops()


class Cost(NamedTuple):
    """So many jobs, and seconds of a processor: of the server for this client, and of the client itself."""

    jobs: int
    server: float
    client: float

    def __add__(self, other: Any) -> Cost:
        return Cost(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


NOTHING = Cost(0, 0.0, 0.0)


def processor_seconds(pid: int) -> float:
    """What a process has had of a processor so far."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def ticked(url: str, schema: str = "tick") -> Cost:
    """One tick, and what it took the server until its last round trip."""
    opened: list[queue.Queue] = []
    spent = [0.0]

    def remembered(*args: Any) -> queue.Queue:
        opened.append(queue.Queue(*args))
        return opened[-1]

    def look(_: processor.Report) -> None:
        spent[0] = processor_seconds(opened[0].connection.info.backend_pid)

    settings, began = Settings(database_url=url, schedules_path=NO_FILE, schema=schema), time.process_time()
    with patch.object(processor, "Queue", remembered):
        report = await processor.process_tick(settings, REGISTRY, budget=BUDGET, progress=look)
    return Cost(report.done, spent[0], time.process_time() - began)


# What a job costs


def put_in(url: str, jobs: int, at_once: int) -> Cost:
    """Put jobs in, so many in a commit."""
    news, began = [HANDLER.new_job(PAYLOAD)] * at_once, time.process_time()
    with psycopg.connect(url, autocommit=True) as connection:
        for _ in range(jobs // at_once):
            intake.enqueue_many(connection, news)
        return Cost(jobs, processor_seconds(connection.info.backend_pid), time.process_time() - began)


def beside(url: str) -> float:
    """What the server's own processes have taken: the writers of its log and of its pages."""
    with psycopg.connect(url) as connection:
        pids = connection.execute("select pid from pg_stat_activity where backend_type not in ('client backend')")
        return sum(processor_seconds(pid) for (pid,) in pids)


def written(url: str) -> int:
    """Bytes of the server's log, of all its life."""
    with psycopg.connect(url) as connection:
        (bytes_written,) = connection.execute(WAL).fetchone() or (0,)
    return int(bytes_written)


def costs(server: Server, args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of a processor and bytes of the server's log for a thousand jobs, on the way in and on the way out."""
    bench = Bench(server.urls, "costs")
    works: dict[str, Callable[[], Cost]] = {
        "enqueued, one commit each": partial(put_in, bench.url, args.jobs // 10, 1),
        f"enqueued, {BULK} in a commit": partial(put_in, bench.url, args.jobs, BULK),
        "claimed, run and settled": lambda: asyncio.run(ticked(bench.url)),
    }
    samples: dict[str, list[list[float]]] = {name: [] for name in works}
    for number in range(args.rounds + 1):
        bench.clear()
        for name, work in works.items():
            sample = per_thousand(bench.url, work)
            if number:
                samples[name].append(sample)
    told = {name: _told(name, taken) for name, taken in samples.items()}
    return told | {"idle": idle(bench.url), "kept": kept(server)}


def kept(server: Server) -> float:
    """Bytes on disk of a finished job, with its part of the indexes."""
    with psycopg.connect(Bench(server.urls, "kept", history=FINISHED).url) as connection:
        (size,) = connection.execute("select pg_total_relation_size('tick.jobs')").fetchone() or (0,)
    print(f"  a finished job takes {size / FINISHED:.0f} bytes", flush=True)
    return float(size / FINISHED)


def idle(url: str) -> float:
    """Seconds of the server's processor for a tick with nothing to do: its connection, and its one round trip."""
    spent = median(asyncio.run(ticked(url)).server for _ in range(IDLE))
    print(f"  a tick with nothing to do takes {1000 * spent:.1f} ms of the server's processor", flush=True)
    return spent


def per_thousand(url: str, work: Callable[[], Cost]) -> list[float]:
    """For a thousand jobs: seconds of the server for this client, of the server beside it, of the client; bytes."""
    log, writers = written(url), beside(url)
    cost = work()
    spent = [cost.server, beside(url) - writers, cost.client, written(url) - log]
    return [1000 * each / cost.jobs for each in spent]


def _told(name: str, taken: list[list[float]]) -> dict[str, Any]:
    server, writers, client, log = (median(each) for each in zip(*taken, strict=True))
    print(
        f"  1,000 jobs {name:<27} {server:.3f} s of the server's processor, {writers:.3f} of its writers,"
        f" {client:.3f} of the client's, {log / 1e6:.2f} MB of WAL",
        flush=True,
    )
    return {"server": server, "writers": writers, "client": client, "wal": log, "samples": taken}


# Several ticks while jobs come


def produce(url: str, rate: float, seconds: float, end: Connection) -> None:
    """The work of a process: put jobs in at a rate, one commit each."""
    new, count, client = HANDLER.new_job(PAYLOAD), 0, time.process_time()
    with psycopg.connect(url, autocommit=True) as connection:
        began = time.monotonic()
        while (now := time.monotonic() - began) < seconds:
            if count < rate * now:
                intake.enqueue(connection, new)
                count += 1
            else:
                time.sleep(1 / rate)
        server = processor_seconds(connection.info.backend_pid)
    end.send(Cost(count, server, time.process_time() - client))


def tick_on(url: str, end: Connection) -> None:
    """The work of a process: a tick each second until it is told to stop, and a last one."""
    total, told = NOTHING, False
    while not told:
        told = end.poll(EVERY)
        total += asyncio.run(ticked(url))
    end.send(total)


@contextmanager
def processes(count: int, target: Callable[..., None], *args: Any) -> Iterator[list[Connection]]:
    """So many processes, each at the other end of a pipe."""
    ends, started = [], []
    for _ in range(count):
        ours, theirs = SPAWN.Pipe()
        started.append(SPAWN.Process(target=target, args=[*args, theirs], daemon=True))
        started[-1].start()
        ends.append(ours)
    try:
        yield ends
    finally:
        for process in started:
            process.kill()
            process.join()


def flow(server: Server, args: argparse.Namespace) -> dict[str, Any]:
    """One tick a second, two and four, while jobs come at a rate, one commit each."""
    bench = Bench(server.urls, "flow")
    return {str(size): flowing(bench, size, args) for size in CREWS}


def flowing(bench: Bench, size: int, args: argparse.Namespace) -> dict[str, Any]:
    """So many processes that tick."""
    bench.clear()
    with (
        processes(size, tick_on, bench.url) as ticking,
        processes(PRODUCERS, produce, bench.url, args.rate / PRODUCERS, args.seconds) as producing,
    ):
        arrived = sum((end.recv() for end in producing), NOTHING)
        for end in ticking:
            end.send("stop")
        done = sum((end.recv() for end in ticking), NOTHING)
    with psycopg.connect(bench.url) as connection:
        (wrong,) = connection.execute(WRONG).fetchone() or (None,)
        mean, most = map(float, connection.execute(WAITED).fetchone() or (0, 0))
    assert (wrong, done.jobs) == (0, arrived.jobs), f"{wrong} jobs are not done, or were claimed more than once"
    told = {
        "jobs a second": arrived.jobs / args.seconds,
        "ticking": 1000 * done.server / done.jobs,
        "producing": 1000 * arrived.server / arrived.jobs,
        "waited": mean,
        "waited at most": most,
    }
    print(
        f"  {size} x a tick each second, {told['jobs a second']:,.0f} jobs/s come: of a core for 1,000 jobs/s"
        f" {told['ticking']:.1%} for the ticks, {told['producing']:.1%} for the commits;"
        f" jobs wait {mean:.2f} s, {most:.2f} at most",
        flush=True,
    )
    return told


# Many schemas


class Shops:
    """A database with many schemas of tick's tables, and one with a single schema to compare."""

    def __init__(self, server: Server, count: int) -> None:
        self.alone = create(server.urls, "alone")
        with psycopg.connect(server.urls.format("postgres"), autocommit=True) as admin:
            admin.execute("create database shops")
        self.url = server.urls.format("shops")
        self.names = [f"shop_{number}" for number in range(1, count + 1)]
        began = time.perf_counter()
        asyncio.run(self.migrate())
        self.migrated = (time.perf_counter() - began) / count

    async def migrate(self) -> None:
        async with database.connect(self.url) as connection:
            for name in self.names:
                await database.migrate(connection, name)

    def round(self, url: str, names: Sequence[str], at_once: int = 1) -> Sample:
        """A tick in each of these schemas, so many at once: rounds a second."""
        began = time.perf_counter()
        done = asyncio.run(self.tick_all(url, names, at_once))
        assert done == 0, done
        return Sample(1 / (time.perf_counter() - began))

    async def tick_all(self, url: str, names: Sequence[str], at_once: int) -> int:
        room = asyncio.Semaphore(at_once)

        async def tick_one(name: str) -> int:
            settings = Settings(database_url=url, schedules_path=NO_FILE, schema=name)
            async with room:
                return (await processor.process_tick(settings, REGISTRY, budget=BUDGET)).done

        return sum(await asyncio.gather(*map(tick_one, names)))

    def apart(self) -> bool:
        """Jobs in every fifth schema: whether ticks of all find these and no others, each where it is."""
        news = [HANDLER.new_job(PAYLOAD)] * A_FEW
        chosen = self.names[::5]
        with psycopg.connect(self.url, autocommit=True) as connection:
            for name in chosen:
                intake.enqueue_many(connection, news, name)
            done = asyncio.run(self.tick_all(self.url, self.names, AT_ONCE))
            counted = {name: connection.execute(_in(DONE, name)).fetchone() for name in self.names}
        expected = {name: (A_FEW, A_FEW) if name in chosen else (0, 0) for name in self.names}
        return done == A_FEW * len(chosen) and counted == expected

    def size(self) -> tuple[int, int, int]:
        """Of one schema: tables, all relations with files, bytes."""
        with psycopg.connect(self.url) as connection:
            tables, relations, size = connection.execute(SIZE).fetchone() or (0, 0, 0)
        return tables, relations, int(size)


def _in(statement: str, schema: str) -> sql.Composed:
    return sql.SQL(statement).format(sql.Identifier(schema))


def schemas(server: Server, args: argparse.Namespace) -> tuple[dict[str, Any], list[Verdict]]:
    """What a schema costs, and an idle round over all of them."""
    shops = Shops(server, args.schemas)
    tables, relations, size = shops.size()
    is_apart = shops.apart()
    contenders: dict[str, Contender] = {
        "as many on one schema": lambda: shops.round(shops.alone, ["tick"] * args.schemas),
        "one after the other": lambda: shops.round(shops.url, shops.names),
        f"{AT_ONCE} at once": lambda: shops.round(shops.url, shops.names, AT_ONCE),
    }
    series = alternate(contenders, args.rounds)
    told = {
        "schemas": args.schemas,
        "tables": tables,
        "relations": relations,
        "bytes": size,
        "seconds to migrate": shops.migrated,
        "rounds": {name: each.as_dict() | {"seconds": 1 / each.median} for name, each in series.items()},
    }
    print(f"  a schema: {tables} tables, {relations} files, {size / 1e6:.1f} MB, migrated in {shops.migrated:.2f} s")
    return told, [*_rounds(series, args.schemas), _apart(args.schemas, is_apart=is_apart)]


def _rounds(series: dict[str, Series], count: int) -> Iterator[Verdict]:
    one = next(iter(series.values()))
    for name, each in series.items():
        ratio = one.ratio(each)
        print(f"  {count} idle ticks, {name}: {1000 / each.median / count:.1f} ms each, {shown(ratio)} of one schema's")
        if each is not one:
            yield at_most(f"idle ticks over {count} schemas, {name}", 1.2, "x as many on one schema", ratio)


def _apart(count: int, *, is_apart: bool) -> Verdict:
    measured = f"{A_FEW} in every fifth of {count} schemas: " + ("each done where it is" if is_apart else "mixed up")
    return Verdict("jobs of one schema seen by ticks of another", "none", measured, is_apart)


def ask(server: Server, args: argparse.Namespace) -> Answer:
    """What a job costs, what several ticks do while jobs come, and what many schemas cost."""
    cost = costs(server, args)
    flowed = flow(server, args)
    many, verdicts = schemas(server, args)
    return Answer({"costs": cost, "flow": flowed, "schemas": many}, verdicts)


question = Question(
    name="scaling",
    description=__doc__ or "",
    ask=ask,
    sizes={"jobs": (20_000, 2_000), "rounds": (5, 1), "rate": (1_000, 200), "seconds": (15, 3), "schemas": (50, 8)},
)

if __name__ == "__main__":
    question.main()
