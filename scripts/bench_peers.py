"""Runs the same work with other systems and with ours, side by side on this machine.

    .venv/bin/python scripts/bench_peers.py --setup
    .venv/bin/python scripts/bench_peers.py --what fps [--rounds 3] [--seconds 15] [--warmup-s 5]
    .venv/bin/python scripts/bench_peers.py --what solve [--rounds 5] [--only impala-redis,rllib]

`fps`: CartPole-v1, frames used by an update per second, after a warm-up. `solve`: seconds from the
start of the process until the last 100 training episodes had a mean return of 475; each round has
its own seed. Every peer has the settings that suited it best on a machine of two cores; its driver
in `scripts/bench/peers` says which, and through which adapter. `jax-loop` is no library but a loop
that JAX compiles as a whole, environments included; for `solve` it runs with all that it compiles,
and as `jax-loop-compiled` with what an earlier run has compiled.

In a round everyone runs once, so that the machine's noise hits all alike; medians are over rounds.
Peers are installed when they are needed, each into a virtual environment of its own, by the pip
that is configured here; logs are in the folder. The last line is JSON. In it `others_cores` says
how many cores other programs had during a round: above 0.2 or so, the figure is theirs too. Exit
code 1 if someone could not be installed or measured: the table says why, and the others are there.
"""

import json
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench import measuring
from bench.peers import bounded
from bench.peers.contestants import CONTESTANTS
from impala_redis.workers.options import CONTEXT

OURS = "impala-redis"
FOLDER = Path(__file__).parents[1] / ".peers"
# Seconds for a driver's start and end: some import for long and start many processes.
MARGIN_S = 90.0
# The figure of a round, and the unit of its median.
FIGURE = {"fps": ("fps", "frames/s"), "solve": ("solve_s", "s to solve")}
Outcome = dict[str, Any]  # what a driver reported, or {"failed": why}


class Work(NamedTuple):
    """What each contestant does in a round."""

    what: str
    seconds: float
    warmup_s: float
    limit_s: float
    ours: str
    folder: Path

    @property
    def bound_s(self) -> float:
        """Seconds after which a contestant that has not ended is ended."""
        work_s = self.warmup_s + self.seconds if self.what == "fps" else self.limit_s
        return work_s + MARGIN_S

    def options(self, seed: int) -> list[str]:
        """A driver's options, for a process that starts now."""
        return [
            *("--what", self.what, "--seconds", str(self.seconds)),
            *("--warmup-s", str(self.warmup_s), "--limit-s", str(self.limit_s)),
            *("--seed", str(seed), f"--ours={self.ours}", "--started-s", str(time.monotonic())),
        ]


# What is run.


def installed(name: str, folder: Path, outcomes: list[Outcome]) -> bool:
    """Installs a contestant if need be; its outcome says why that failed."""
    log = folder / "logs" / f"{name}-install.log"
    try:
        CONTESTANTS[name].install(folder, log)
    except bounded.Failed as failure:
        outcomes.append({"failed": f"not installed: {failure} ({log})"})
        say(f"{name}: {outcomes[-1]['failed']}")
        return False
    say(f"{name}: installed")
    return True


def say(words: str) -> None:
    """Shows how far the work is, on standard error."""
    click.echo(words, err=True)


def measure(name: str, seed: int, work: Work) -> Outcome:
    """One run of one contestant, and how many cores other programs had meanwhile."""
    others_cores = measuring.others_cores()
    outcome = run(name, seed, work)
    return outcome | {"others_cores": round(others_cores(), 2)}


def run(name: str, seed: int, work: Work) -> Outcome:
    """What the contestant's driver reported, or why it reported nothing."""
    contestant = CONTESTANTS[name]
    log = work.folder / "logs" / f"{name}-{work.what}-{seed}.log"
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as scratch:
        environment = contestant.environment(work.folder) | {"TMPDIR": scratch}
        command = [contestant.python(work.folder), str(contestant.driver)]
        try:
            bounded.run([*command, *work.options(seed)], log, work.bound_s, environment)
            return report_in(log)
        except bounded.Failed as failure:
            return {"failed": f"{failure} ({log})"}


def report_in(log: Path) -> Outcome:
    """The driver's line of JSON. Raises bounded.Failed when there is none."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith('{"settings": ') and line.endswith("}"):
            return dict(json.loads(line))
    raise bounded.Failed("ended without its line of JSON")


# What it comes to.


def summary(outcomes: list[Outcome], work: Work) -> dict[str, Any]:
    """A contestant's median and spread over its rounds; None where there is none."""
    figure, _ = FIGURE[work.what]
    ran = [outcome for outcome in outcomes if "failed" not in outcome]
    # A round in which it was not solved took longer than any in which it was.
    values = sorted(r[figure] if r[figure] is not None else float("inf") for r in ran)
    middle = statistics.median(values) if values else float("inf")
    return {
        "median": finite(middle),
        "low": finite(values[0]) if values else None,
        "high": finite(values[-1]) if values else None,
        "settings": ran[0]["settings"] if ran else None,
        "versions": ran[0]["versions"] if ran else {},
        "failed": [outcome["failed"] for outcome in outcomes if "failed" in outcome],
        "rounds": [
            {key: value for key, value in outcome.items() if key not in ("settings", "versions")}
            for outcome in outcomes
        ],
    }


def finite(value: float) -> float | None:
    """The figure, or None for infinity, which JSON does not have."""
    return None if value == float("inf") else value


def compare(summaries: dict[str, dict[str, Any]], what: str) -> None:
    """Adds how many times as fast ours is as each: more frames, or less time."""
    ours = summaries.get(OURS, {}).get("median")
    for one in summaries.values():
        theirs = one["median"]
        known = bool(ours and theirs)
        one["ours_is_faster_by"] = (
            (ours / theirs if what == "fps" else theirs / ours) if known else None
        )


def table(summaries: dict[str, dict[str, Any]], work: Work) -> Table:
    """The medians, best first, for people."""
    _, unit = FIGURE[work.what]
    shown = Table("who", unit, "lowest to highest", "ours is", "settings", title="CartPole-v1")
    best_first = sorted(summaries.items(), key=lambda pair: rank(pair[1]["median"], work.what))
    for name, one in best_first:
        ratio = one["ours_is_faster_by"]
        low, high = (number(one[end], work) for end in ("low", "high"))
        spread = f"{low} to {high}" if one["low"] is not None else ""
        shown.add_row(
            name,
            number(one["median"], work) if one["settings"] else "-",
            spread,
            f"{ratio:.2f} x as fast" if ratio and name != OURS else "",
            remarks(one),
        )
    rounds = [outcome for one in summaries.values() for outcome in one["rounds"]]
    busiest = max((outcome.get("others_cores", 0.0) for outcome in rounds), default=0.0)
    shown.caption = f"cores that other programs had meanwhile: at most {busiest:.1f}"
    return shown


def remarks(one: dict[str, Any]) -> str:
    """A contestant's settings, and what went wrong with it."""
    words = [one["settings"] or "not measured"]
    if failed := one["failed"]:
        words.append(f"{len(failed)} of {len(one['rounds'])} failed: {failed[-1]}")
    return escape("; ".join(words))


def rank(median: float | None, what: str) -> float:
    """A key that sorts the best first and those without a figure last."""
    if median is None:
        return float("inf")
    return -median if what == "fps" else median


def number(value: float | None, work: Work) -> str:
    """A figure as text; None is a task that was not solved within the limit."""
    if value is None:
        return f"not in {work.limit_s:.0f} s"
    return f"{value:,.0f}" if work.what == "fps" else f"{value:.1f}"


def brief(outcome: Outcome, work: Work) -> str:
    """A round's outcome, while others still run."""
    figure, unit = FIGURE[work.what]
    if "failed" in outcome:
        return str(outcome["failed"])
    value = outcome[figure]
    return number(value, work) + (f" {unit}" if value is not None else "")


def report(summaries: dict[str, dict[str, Any]], work: Work) -> None:
    """Prints the table and the line of JSON."""
    compare(summaries, work.what)
    Console(width=None if sys.stdout.isatty() else 120).print(table(summaries, work))
    about = measuring.machine() | {
        "machine": platform.machine(),
        "date": time.strftime("%Y-%m-%d"),
        "what": work.what,
        "seconds": work.seconds,
        "warmup_s": work.warmup_s,
        "limit_s": work.limit_s,
    }
    print(json.dumps({"about": about, "contestants": summaries}))


def chosen(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    """The contestants that --only names."""
    names = list(dict.fromkeys(name.strip() for name in text.split(",")))
    unknown = sorted(set(names) - set(CONTESTANTS))
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)} is none of {', '.join(CONTESTANTS)}")
    return names


@click.command(help=__doc__, context_settings=CONTEXT)
@click.option("--what", type=click.Choice(list(FIGURE)), default="fps", help="What is measured.")
@click.option("--only", default=",".join(CONTESTANTS), callback=chosen, help="Who is measured.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Runs of each.")
@click.option("--seconds", type=click.FloatRange(min=1), default=15.0, help="Measured in a run.")
@click.option("--warmup-s", type=click.FloatRange(min=0), default=5.0, help="Before, not counted.")
@click.option("--limit-s", type=click.FloatRange(min=1), default=180.0, help="For solving it.")
@click.option(
    "--ours",
    default="--preset cartpole-throughput",
    help="Options of impala-train for frames per second.",
)
@click.option(
    "--folder", type=click.Path(path_type=Path), default=FOLDER, help="For peers and logs."
)
@click.option("--setup", is_flag=True, help="Only install.")
def main(
    what: str,
    only: list[str],
    rounds: int,
    seconds: float,
    warmup_s: float,
    limit_s: float,
    ours: str,
    folder: Path,
    setup: bool,
) -> None:
    measuring.begin()
    work = Work(what, seconds, warmup_s, limit_s, ours, folder.absolute())
    try:
        work.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"--folder {folder} cannot be made: {error.strerror}") from error
    asked = [name for name in only if setup or what in CONTESTANTS[name].takes_part_in]
    outcomes: dict[str, list[Outcome]] = {name: [] for name in asked}
    code = 0
    try:
        able = [name for name in asked if installed(name, work.folder, outcomes[name])]
        for name in [] if setup else able:
            if CONTESTANTS[name].is_warm:
                say(f"before the rounds, {name}: {brief(measure(name, 0, work), work)}")
        for seed in range(0 if setup else rounds):
            for name in measuring.taking_turns(able, seed):
                outcomes[name].append(measure(name, seed, work))
                say(f"round {seed + 1}, {name}: {brief(outcomes[name][-1], work)}")
    except KeyboardInterrupt:
        code = 130
    summaries = {name: summary(ran, work) for name, ran in outcomes.items()}
    if not setup:
        report(summaries, work)
    sys.exit(code or int(any(one["failed"] for one in summaries.values())))


if __name__ == "__main__":
    main()
