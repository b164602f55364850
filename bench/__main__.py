"""Every question of the benchmark, one after the other, and the goals with what came of them.

    uv run python -m bench                    # all of it on Postgres 15: an hour and a half
    uv run python -m bench --quick            # without other queues, small: does it run, and is it still as fast?
    uv run python -m bench drain cold         # these two
    uv run python -m bench --report           # only the table and the charts, from what is there

Each question is a command too, `python -m bench.<name>`, with options of its own. What they measured stands in a JSON
file each, in `docs/benchmarks`, beside the table and the charts made from them; with `--quick` nothing is kept.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
import traceback
from pathlib import Path
from typing import Any

from . import clusters
from .charts import charts
from .questions import Question

QUESTIONS = (
    *("drain", "enqueue", "sleepers", "cold", "idle", "network", "behind", "schedules", "together", "memory"),
    *("budgets", "growth", "scaling"),
)
FOLDER = Path("docs/benchmarks")
MARKS = {True: "yes", False: "**no**", None: ""}
BOUNDS = {
    "drain: >= 3.5 x pgqueuer": "one Postgres process, at 26 µs of its time a job (decision 0013)",
    "drain: >= 60 x procrastinate": "the same; its own runs of 2 s differ as much from day to day",
    "enqueue one by one": "the commit: a bare insert into the same table is hardly faster than pgqueuer",
    "enqueue in bulk": "the table: a bare insert of arrays into it is no faster than pgmq",
    "50 at once": "connecting and the first claim, 20 ms; asyncio's timers, which count whole milliseconds",
    "500 at once": "connecting and the first claim, 20 ms of 200; then 500 jobs at a time to start and settle",
    "time of an idle tick": "planning on a new connection, which loads the jobs table and its 22 indexes first",
    "a password (SCRAM)": "its round trips: six, of which four connect",
    "Vercel": "Starlette's imports, which the other app has too, and the 35 modules of the endpoint",
    "of the rate on an empty table": "the spread of the machine, as the ranges say: those of the others hold 1 too",
}
"""Words of a goal, and what bounds it, if it is not met."""
HEADER = "| question | goal | measured | met | what bounds it |\n| --- | --- | --- | --- | --- |\n"


def question(name: str) -> Question:
    """One of them."""
    asked: Question = importlib.import_module(f"bench.{name}").question
    return asked


def ask(name: str, args: argparse.Namespace) -> bool:
    """Put one question; whether it could be answered. What fails in the middle says so, and the others go on."""
    asked = question(name)
    given = ["--postgres", *args.postgres]
    if args.quick:
        given += ["--quick", *(["--peers", "none"] if hasattr(asked.arguments([]), "peers") else [])]
    else:
        given += ["--json", str(args.into / f"{name}.json")]
    try:
        asked.run(asked.arguments(given))
    except Exception:
        traceback.print_exc()
        return False
    return True


def reports(folder: Path) -> list[dict[str, Any]]:
    """What is known, in the order of the questions."""
    files = [folder / f"{name}.json" for name in QUESTIONS]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def table(known: list[dict[str, Any]]) -> str:
    """The goals, in Markdown."""
    return HEADER + "".join(row(goal) for report in known for goal in report["goals"])


def row(goal: dict[str, Any]) -> str:
    """One goal; when it is not met, with what bounds it."""
    name = f"{goal['question']}: {goal['goal']}"
    known = next((BOUNDS[words] for words in BOUNDS if words in name), goal["bound"])
    bound = known if goal["met"] is False else ""
    return f"| {goal['question']} | {goal['goal']} | {goal['measured']} | {MARKS[goal['met']]} | {bound} |\n"


def write(folder: Path) -> None:
    """The table and the charts."""
    known = reports(folder)
    (folder / "goals.md").write_text(
        "# The goals, and what came of them\n\nMade by `python -m bench --report` from the JSON files beside it. "
        "A ratio is the median of the rounds' with the least and the greatest; "
        "[what they mean](../benchmarks.md), and what they do not.\n\n" + table(known)
    )
    for report in known:
        for name, drawn in charts(report).items():
            (folder / f"{name}.svg").write_text(drawn)
    print(f"\n{table(known)}\n{folder}/goals.md, and the charts beside it")


def main() -> None:
    """The command."""
    clusters.stop_on_sigterm()
    parser = argparse.ArgumentParser(prog="bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("questions", nargs="*", choices=[*QUESTIONS, []], metavar="QUESTION", help=", ".join(QUESTIONS))
    parser.add_argument("--postgres", nargs="+", default=["15"], metavar="MAJOR")
    parser.add_argument("--quick", action="store_true", help="small, and without other queues; keeps nothing")
    parser.add_argument("--report", action="store_true", help="measure nothing: only write the table and the charts")
    parser.add_argument("--into", type=Path, default=FOLDER, metavar="FOLDER")
    args = parser.parse_args()
    args.into.mkdir(parents=True, exist_ok=True)
    chosen = [] if args.report else args.questions or QUESTIONS
    try:
        failed = [name for name in chosen if not ask(name, args)]
    except KeyboardInterrupt:
        sys.exit(130)
    if not args.quick:
        write(args.into)
    if failed:
        sys.exit(f"not answered: {', '.join(failed)}")


if __name__ == "__main__":
    main()
