"""Measures the transport under load on this machine: queue, weights, cold start, storm, hand-over.

    .venv/bin/python scripts/bench_transport.py [--only L1,moved] [--seconds 10] [--repeat 1]

Each part has a server of its own, over TCP, a real learner at work on it, and real blocks.
The loads of L1 to L6 are those of the targets, made for four cores; only the target of throughput
is scaled by this machine's cores. The parts `moved`, `saturation` and `weights` look for the limit,
redis-benchmark's pushes or a whole core of the server, and say what share of it is reached.
`others_cores` says how many cores other programs had meanwhile: above 0.2 or so, times are theirs
too. Of several repeats the median is judged. The last line is JSON.
"""

import json
import logging
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import redis
from rich.console import Console

from bench.load import crew
from bench.load.crew import Server
from bench.targets import grid_table, judged, table
from bench.transport import moved, outages, pushing, saturation, weights
from bench.transport.pushing import SCALE
from bench.transport.stage import CORES, Bench, Figures, Part
from impala_redis.workers.options import CONTEXT

ROOMS = (pushing, weights, outages, moved, saturation)
PARTS: dict[str, Part] = dict(sorted(item for room in ROOMS for item in room.PARTS.items()))
# A shorter load may end before anything is measured.
AT_LEAST_S = click.FloatRange(min=0.05)


def machine(folder: Path) -> dict[str, Any]:
    """What the figures were measured on, and with."""
    with Server(folder) as server:
        info = server.info("server")
    name = "valkey" if "valkey_version" in info else "redis"
    return {
        "cores": CORES,
        "server": f"{name} {info[f'{name}_version']}",
        "redis_py": redis.__version__,
        "python": platform.python_version(),
    }


def measured(part: str, bench: Bench) -> Figures:
    """The part's figures, and how many cores other programs had meanwhile."""
    (all_before, ours_before), before = crew.cpu_s(), time.monotonic()
    figures = PARTS[part].measure(bench)
    (all_after, ours_after), seconds = crew.cpu_s(), time.monotonic() - before
    others_s = (all_after - all_before) - (ours_after - ours_before)
    return figures | {"others_cores": max(0.0, others_s / seconds), "part_s": seconds}


def chosen_parts(context: click.Context, option: click.Parameter, text: str) -> list[str]:
    """The parts that --only names."""
    parts = [part.strip() for part in text.split(",")]
    unknown = set(parts) - set(PARTS)
    if unknown:
        raise click.BadParameter(f"no part {', '.join(sorted(unknown))}")
    return parts


def tell(
    rows: list[dict[str, Any]], figures: dict[str, dict[str, list[float]]], repeat: int
) -> None:
    """Prints the tables, for people."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    if rows:
        console.print(table(rows, repeat))
    for part, values in figures.items():
        grid = PARTS[part].grid
        if grid:
            console.print(grid_table(grid, values))
    cores = (f"{part} {max(values['others_cores']):.1f}" for part, values in figures.items())
    print(f"cores that other programs had meanwhile: {', '.join(cores)}")


@click.command(help=__doc__, context_settings=CONTEXT)
@click.option("--only", default=",".join(PARTS), callback=chosen_parts, help="Parts to measure.")
@click.option("--seconds", default=10.0, type=AT_LEAST_S, help="How long each load lasts.")
@click.option(
    "--repeat", default=1, type=click.IntRange(min=1), help="How often each part is measured."
)
@click.option("--load", "share", default=1.0, help="Share of the targets' load: for a quick look.")
@click.option("--json", "only_json", is_flag=True, help="No table, only the line of JSON.")
def main(only: list[str], seconds: float, repeat: int, share: float, only_json: bool) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.getLogger("common").setLevel(logging.ERROR)  # that Redis is away is meant
    crew.raise_open_files()
    figures: dict[str, dict[str, list[float]]] = {}
    code = 0
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(seconds, share, Path(folder))
        about = machine(bench.folder)
        about |= {"scale": SCALE, "seconds": seconds, "repeat": repeat, "load": share}
        try:
            for part in only:
                click.echo(f"{part}: {PARTS[part].measure.__doc__}", err=True)
                runs = [measured(part, bench) for _ in range(repeat)]
                figures[part] = {name: [round(run[name], 4) for run in runs] for name in runs[0]}
        except KeyboardInterrupt:
            code = 130
    rows = [
        judged(part, target, figures[part][target.figure])
        for part in figures
        for target in PARTS[part].targets
        if target.figure in figures[part]
    ]
    if "moved" in only and moved.benchmark_program() is None:
        click.echo(moved.NO_PROGRAM, err=True)
    if not only_json:
        tell(rows, figures, repeat)
        print(", ".join(f"{name} {value}" for name, value in about.items()))
    print(json.dumps({"about": about, "figures": figures, "targets": rows}))
    sys.exit(code)


if __name__ == "__main__":
    main()
