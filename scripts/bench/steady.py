"""One training, started as a user starts it, and the figures of its steady part after a warm-up.

The figures are those of its records (docs/metrics.md): means over the updates.
"""

import itertools
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bench import measuring
from bench.measuring import Figures
from impala_redis.common.errors import ImpalaError, RunUnreadable
from impala_redis.common.games.atari_rules import action_repeat
from impala_redis.common.local import children
from impala_redis.common.records.history import Run, RunRecords, mean, read_run

TRAIN = Path(sys.executable).parent / "impala-train"
# Limits for the first update, and for the end after Ctrl-C.
START_LIMIT_S, END_LIMIT_S = 60.0, 40.0
POLL_S = 0.05
# Records in the time that is measured, and the longest interval between two.
RECORDS, LONGEST_INTERVAL_S = 10, 0.25
ENDLESS = ("--stop-at-return", "none", "--total-frames", "1e12")
COMPUTING = ("forward_s", "backward_s", "optimizer_s")
AS_GRAPH = ("graph_s",)  # in place of them, where an update is one CUDA graph
# Only several learners that make an update together have it; a graph's time includes it.
TOGETHER = ("exchange_s",)
STAGES = ("wait_s", "transfer_s", *COMPUTING, *TOGETHER, "weights_s")
BESIDE = ("feeder_cpu_s", "publisher_cpu_s")


class TrainingFailed(ImpalaError):
    """A program that is measured did not start, or ended too early."""


class Variant(NamedTuple):
    """One way to train."""

    name: str
    options: list[str]
    variables: dict[str, str]

    @property
    def environment(self) -> dict[str, str]:
        """Every variable that its programs get."""
        return os.environ | self.variables


def variant_of(text: str) -> Variant:
    """The variant of variables and options, written as in a shell."""
    words = shlex.split(text)
    variables = list(itertools.takewhile(lambda word: re.match(r"[A-Za-z_]\w*=", word), words))
    return Variant(text, words[len(variables) :], dict(word.split("=", 1) for word in variables))


class Clock(NamedTuple):
    """How long a training is measured, from its first update on."""

    warm_up_s: float
    seconds: float

    @property
    def interval_s(self) -> float:
        """Seconds between two records."""
        return min(LONGEST_INTERVAL_S, self.seconds / RECORDS)


def train(variant: Variant, options: Sequence[str], clock: Clock, folder: Path) -> Run:
    """Trains into the folder's `run` for as long as the clock says; ends the programs it started.

    Raises TrainingFailed.
    """
    process = children.spawn(
        [
            *(TRAIN, "--run-dir", folder / "run", *ENDLESS),
            *("--log-interval-s", str(clock.interval_s), *options, *variant.options),
        ],
        log_file=folder / "train.log",
        death_signal=signal.SIGTERM,
        environment=variant.environment,
    )
    try:
        _await_first_update(process, folder)
        # Somewhat longer, so that the last record that counts is there.
        _stay(process, folder, clock.warm_up_s + clock.seconds + 2 * clock.interval_s)
    finally:
        end(process)
    return read_run(folder / "run")


def _await_first_update(process: "subprocess.Popen[bytes]", folder: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        try:
            if read_run(folder / "run").records.last("updates") > 0:
                return
        except RunUnreadable:
            pass
        _stay(process, folder, POLL_S)
    raise TrainingFailed(f"impala-train made no update within {START_LIMIT_S:.0f} s")


def _stay(process: "subprocess.Popen[bytes]", folder: Path, seconds: float) -> None:
    """Waits. Raises TrainingFailed with the program's last words if it ends meanwhile."""
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return
    said = last_words(folder / "train.log") if code else "it had reached its goal"
    raise TrainingFailed(f"impala-train ended with {code} before it was measured: {said}")


def last_words(log: Path) -> str:
    """The error that a program has printed, or whatever it said last."""
    lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
    errors = [line for line in lines if line.lower().startswith("error: ")]
    return (errors or lines)[-1].removeprefix("error: ").removeprefix("Error: ")


def end(process: "subprocess.Popen[bytes]") -> None:
    """Ends impala-train as Ctrl-C does: with its learner and actors, in order."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            pass
        finally:
            children.end(process, 0.0)


def measured(variant: Variant, options: Sequence[str], clock: Clock, folder: Path) -> Figures:
    """The figures of one training, and how many cores other programs had meanwhile."""
    others_cores = measuring.others_cores()
    run = train(variant, options, clock, folder)
    others = others_cores()
    window = steady(run.records, clock)
    if window.count < 3:
        raise TrainingFailed(
            f"impala-train wrote {window.count} records in {clock.seconds:g} s; give more --seconds"
        )
    return figures_of(window, run) | {"others_cores": others}


def steady(records: RunRecords, clock: Clock) -> RunRecords:
    """The records between the warm-up, which begins with the first update, and the end."""
    time_s, updates = records.column("time_s"), records.column("updates")
    since_s = time_s - time_s[np.flatnonzero(updates > 0)[0]] - clock.warm_up_s
    kept = (since_s >= 0) & (since_s <= clock.seconds)
    numbers = {name: column[kept] for name, column in records.numbers.items()}
    return RunRecords(int(kept.sum()), numbers, {})


def figures_of(window: RunRecords, run: Run) -> Figures:
    """The figures of the steady part's records; the first one only marks where its time begins.

    played_per_s are frames, counted as those of an update are. Raises TrainingFailed.
    """

    def rise(name: str) -> float:
        column = window.column(name)
        return _present(name, float(column[-1] - column[0]))

    def per_update(name: str) -> float:
        return _present(name, mean(window, name, "updates"))

    settings, seconds, updates = run.settings, rise("time_s"), rise("updates")
    rows_of_update = settings["batch_size"] * settings["unroll_length"]
    rows_of_block = settings["envs_per_actor"] * settings["unroll_length"]
    real_share = rise("frames") / (updates * rows_of_update)
    is_graph = mean(window, *AS_GRAPH, "updates") is not None
    computing = AS_GRAPH if is_graph else COMPUTING
    together = [name for name in TOGETHER if mean(window, name, "updates") is not None]
    names = ("wait_s", "transfer_s", *computing, *together, "weights_s")
    stages = {name: per_update(name) for name in names}
    computing_s = sum(stages[name] for name in computing)
    return {
        "frames_per_s": rise("frames") / seconds,
        "game_frames_per_s": rise("frames") / seconds * action_repeat(settings["env"]),
        "played_per_s": _blocks_per_s(window) * rows_of_block * real_share,
        "updates_per_s": updates / seconds,
        "real_share": real_share,
        "policy_lag_mean": per_update("policy_lag_mean"),
        "policy_lag_p95": per_update("policy_lag_p95"),
        "dropped_share": rise("blocks_dropped") / max(rise("blocks_produced"), 1.0),
        "published_per_s": per_update("published_per_s"),
        "actor_frames_per_s": per_update("actor_frames_per_s_mean"),
        "update_s": seconds / updates,
        **stages,
        "other_s": seconds / updates - sum(stages.values()),
        "non_compute_share": 1.0 - computing_s * updates / seconds,
        "computing_s": computing_s,
        **{name: per_update(name) for name in BESIDE},
    }


def _present(name: str, value: float | None) -> float:
    if value is None or not np.isfinite(value):
        raise TrainingFailed(
            f"the records of impala-train tell no {name}; give more --warm-up-s or --seconds"
        )
    return value


def _blocks_per_s(window: RunRecords) -> float:
    """Blocks pushed per second, between two readings of the books, which are up to 1 s apart."""
    produced, time_s = window.column("blocks_produced"), window.column("time_s")
    readings = np.flatnonzero(np.diff(produced, prepend=produced[0]) > 0)
    if len(readings) < 2:
        readings = np.array([0, window.count - 1])  # a short look gives a rough figure
    first, last = readings[0], readings[-1]
    return float((produced[last] - produced[first]) / (time_s[last] - time_s[first]))
