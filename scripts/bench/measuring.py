"""Timing, options, tables and JSON, shared by bench_acting, bench_learning and bench_training."""

import contextlib
import json
import platform
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from rich.console import Console
from rich.table import Table

from bench.load.crew import CORES, cpu_s
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import ImpalaError
from impala_redis.common.presets.table import preset
from impala_redis.common.run.config import Config
from impala_redis.common.run.config_file import read_toml
from impala_redis.common.run.spec import RunSpec, make_spec
from impala_redis.workers import process

# The preset that is measured unless another one is named.
PRESET = "cartpole-throughput"
# Default sizes of updates and numbers of environments.
SMALL_NETWORKS = [32, 256, 1024]
# The width of a table in columns where there is no terminal.
WIDTH = 200
# The number of turns of each call that is timed side by side.
SLICES = 10
# The warm-up as a share of the time that is counted.
WARM_UP_SHARE = 0.1

Figures = dict[str, float]
Function = Callable[..., Any]


class Spread(NamedTuple):
    """A figure over the repeats."""

    median: float
    low: float
    high: float

    def shown(self, form: str = ",.0f", scale: float = 1.0) -> str:
        """The median and, where repeats differ, the least and the greatest."""
        median, low, high = (format(scale * value, form) for value in self)
        return median if low == high else f"{median} ({low} to {high})"


Spreads = dict[str, Spread]


def spreads(repeats: Sequence[Figures]) -> Spreads:
    """Each figure's spread over the repeats."""
    found = {}
    for name in repeats[0]:
        values = [figures[name] for figures in repeats]
        found[name] = Spread(statistics.median(values), min(values), max(values))
    return found


def ratios_of(runs: dict[str, list[Figures]]) -> dict[str, Spread]:
    """The ratio of each variant's frames/s to those of the first, repeat by repeat."""
    first, *_ = runs.values()
    found = {}
    for name, of in runs.items():
        pairs = zip(of, first, strict=True)
        ratios = [{"ratio": mine["frames_per_s"] / base["frames_per_s"]} for mine, base in pairs]
        found[name] = spreads(ratios)["ratio"]
    return found


def side_by_side(calls: Mapping[str, Callable[[], object]], seconds: float) -> Figures:
    """The mean seconds that a call of each takes; each is called for about `seconds`."""
    return {name: statistics.fmean(of) for name, of in timed(calls, seconds).items()}


def timed(calls: Mapping[str, Callable[[], object]], seconds: float) -> dict[str, list[float]]:
    """The seconds of every single call of each; each is called for about `seconds`.

    They take turns in short slices, so that a disturbance of the machine disturbs all of them. A
    call that takes longer than a slice waits until the others have caught up.
    """
    spent_s, taken_s = dict.fromkeys(calls, 0.0), {name: list[float]() for name in calls}
    for number in range(SLICES):
        due_s = seconds * (number + 1) / SLICES
        for name in taking_turns(list(calls), number):
            call, ended = calls[name], time.perf_counter()
            while spent_s[name] < due_s:
                call()
                began, ended = ended, time.perf_counter()
                spent_s[name] += ended - began
                taken_s[name].append(ended - began)
    return taken_s


def fastest_tenth(seconds: Sequence[float]) -> float:
    """What a tenth of the calls do not exceed: the time when nothing else disturbs."""
    return float(np.quantile(seconds, 0.1))


def others_cores() -> Callable[[], float]:
    """A function that returns how many cores other programs had since this call (Linux).

    Children of this process count as its own once they have ended.
    """
    (all_before, ours_before), before = cpu_s(), time.monotonic()

    def cores() -> float:
        (all_now, ours_now), elapsed_s = cpu_s(), time.monotonic() - before
        return max(0.0, (all_now - all_before - (ours_now - ours_before)) / elapsed_s)

    return cores


def taking_turns(things: Sequence[Any], repeat: int) -> list[Any]:
    """The order of a repeat: what comes first in one comes last in the next."""
    return list(things if repeat % 2 == 0 else reversed(things))


def begin() -> None:
    """Sets the process up as the programs are; a SIGTERM ends it in order."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    process.keep_memory()


@contextlib.contextmanager
def one_sentence() -> Iterator[None]:
    """Turns a failure into one sentence and an exit code."""
    try:
        yield
    except ImpalaError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def whole_numbers(context: click.Context, option: click.Parameter, text: str | None) -> list[int]:
    """ "1,2,4" as numbers above 0; nothing as none."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"must be whole numbers above 0 with commas, not {text!r}")
    return [int(part) for part in dict.fromkeys(parts)]


def task_options(function: Function) -> Function:
    """Adds the options that name the settings to measure."""
    options = (
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path, dir_okay=False),
            help="TOML file of settings, as of a run; outranks the preset.",
        ),
        click.option("--preset", "preset_name", default=PRESET, help="Settings for a task."),
        click.option("--unroll-length", type=click.IntRange(min=1), help="Instead of theirs."),
    )
    for option in options:
        function = option(function)
    return function


def timing_options(seconds: float, what: str) -> Callable[[Function], Function]:
    """Adds the options that say how long and how often to measure."""

    def decorate(function: Function) -> Function:
        options = (
            click.option("--json", "only_json", is_flag=True, help="Only the line of JSON."),
            click.option(
                "--repeat", type=click.IntRange(min=1), default=3, help="How often, in turns."
            ),
            click.option(
                "--seconds",
                type=click.FloatRange(min=0, min_open=True),
                default=seconds,
                help=what,
            ),
        )
        for option in options:
            function = option(function)
        return function

    return decorate


def config_of(preset_name: str, config_file: Path | None, unroll_length: int | None) -> Config:
    """The settings that the options name. Raises ConfigError."""
    config = preset(preset_name).replace(read_toml(config_file) if config_file else {})
    return config.replace({"unroll_length": unroll_length} if unroll_length else {})


def sizes_of(spec: RunSpec, asked: list[int], own: int) -> list[int]:
    """The sizes asked for, else several; with convolutions, which take long, only the run's own."""
    return asked or (SMALL_NETWORKS if spec.network == "mlp" else [own])


def spec_of(config: Config) -> RunSpec:
    """The spec of a run of these settings. Raises UnsupportedEnvironment."""
    wanted = config.environment
    with contextlib.closing(
        VectorEnvironment(wanted.env, 1, frame_stack=wanted.frame_stack)
    ) as environment:
        return make_spec("bench", config, environment.observation, environment.action)


def about(spec: RunSpec, seconds: float, repeat: int, others: float) -> dict[str, Any]:
    """What was measured, and how quiet the machine was."""
    return {
        "env": spec.env,
        "unroll_length": spec.unroll_length,
        "network": spec.network,
        "hidden_sizes": list(spec.hidden_sizes),
        "lstm_size": spec.lstm_size,
        "frame_stack": spec.observation.frame_stack,
        "compression": spec.compression,
        "seconds": seconds,
        "repeat": repeat,
        "others_cores": round(others, 2),
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on, and with."""
    packages = ("torch", "numpy", "gymnasium", "redis")
    versions = {name: metadata.version(name) for name in packages}
    return {"cores": CORES, "python": platform.python_version()} | versions


def as_document(about: dict[str, Any], figures: dict[str, Spreads], **more: Any) -> dict[str, Any]:
    """The document for JSON, with each figure as median, low and high."""
    as_dicts = {case: {name: s._asdict() for name, s in of.items()} for case, of in figures.items()}
    return {"about": machine() | about, "figures": as_dicts} | more


def table(title: str, *heads: str) -> Table:
    """An empty table: a column for names, and one for each head."""
    made = Table("", title=title)
    for head in heads:
        made.add_column(head, justify="right", no_wrap=True)
    return made


def show(tables: Sequence[Table], document: dict[str, Any], only_json: bool) -> None:
    """Prints the tables and the machine for people, then the document as one line of JSON."""
    if not only_json:
        console = Console(width=None if sys.stdout.isatty() else WIDTH)
        for table in tables:
            console.print(table)
        print(", ".join(f"{name} {value}" for name, value in document["about"].items()))
    print(json.dumps(document))
