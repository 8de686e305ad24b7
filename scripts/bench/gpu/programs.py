"""The project's programs as the kit starts them, and the figures of a run that they leave.

They are started as modules: on another machine the project is on the path, and not installed.
"""

import math
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import steady
from bench.gpu.plan import Row
from impala_redis.common.errors import RunUnreadable
from impala_redis.common.games.atari_rules import action_repeat
from impala_redis.common.local import children
from impala_redis.common.records.history import Run, RunRecords, mean, read_run
from impala_redis.workers import programs

Process = subprocess.Popen[bytes]
# Means over the updates, so far as the run has them.
FIGURES = (
    *("device_busy_share", "wait_share", "policy_lag_mean", "transfer_s", "forward_s"),
    *("backward_s", "optimizer_s", "graph_s", "weights_s", "wait_s", "batch_s", "claim_share"),
    *("feeder_cpu_s", "publish_share", "published_per_s", "actors", "actor_frames_per_s_mean"),
    *("replay_share", "device_memory_bytes"),
)
POLL_S = 0.25
# A program that is asked to end gets so long. A part that trains keeps it free of its time.
END_S = 12.0
MOST_POINTS = 80  # of a curve


def start(name: str, options: Sequence[str], folder: Path) -> Process:
    """Starts the program; its words go to a log of its name in the folder."""
    return children.spawn(
        programs.command(name, *options),
        log_file=folder / f"{name}.log",
        death_signal=signal.SIGTERM,
    )


def train(options: Sequence[str], folder: Path, ends_at: float, seconds: float | None) -> Run:
    """The run that impala-train made until its goal, or until one of two times is over.

    Args:
      options: its own.
      folder: where the run and the log go.
      ends_at: when it is to end, of time.monotonic().
      seconds: how long it goes on after its first update; None for as long as it likes.

    Raises steady.TrainingFailed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    process = start("train", ["--run-dir", str(folder / "run"), *options], folder)
    try:
        follow({"train": process}, folder, ends_at, seconds)
    finally:
        steady.end(process)
    return run_in(folder)


def follow(
    processes: Mapping[str, Process], folder: Path, ends_at: float, seconds: float | None
) -> None:
    """Waits as `train` says, or until a program has ended. Raises steady.TrainingFailed: badly."""
    until = ends_at
    is_learning = seconds is None
    while time.monotonic() < until:
        for name, process in processes.items():
            if code := process.poll():
                said = steady.last_words(folder / f"{name}.log")
                raise steady.TrainingFailed(f"impala-{name} ended with {code}: {said}")
            if code == 0:
                return
        if not is_learning and has_learned(folder / "run"):
            is_learning, until = True, min(ends_at, time.monotonic() + (seconds or 0.0))
        time.sleep(min(POLL_S, max(0.0, until - time.monotonic())))


def has_learned(run: Path) -> bool:
    """Whether its records tell of an update."""
    try:
        return read_run(run).records.last("updates") > 0
    except RunUnreadable:
        return False


def run_in(folder: Path) -> Run:
    """The run below the folder, if it has learned something. Raises steady.TrainingFailed."""
    if not has_learned(folder / "run"):
        said = [steady.last_words(log) for log in sorted(folder.glob("*.log"))]
        raise steady.TrainingFailed(f"no update was made in time: {'; '.join(said)}")
    return read_run(folder / "run")


def figures(run: Run, warm_up_s: float) -> Row:
    """What a run came to after its warm-up, which begins with the first update.

    Of a shorter run all is taken. Raises steady.TrainingFailed where there are too few records.
    """
    window = steady.steady(run.records, steady.Clock(warm_up_s, math.inf))
    window = window if window.count >= 3 else steady.steady(run.records, steady.Clock(0, math.inf))
    if window.count < 2:
        raise steady.TrainingFailed("it wrote a single record; give the part more time")
    seconds, frames = rise(window, "time_s"), rise(window, "frames")
    found: Row = {
        "seconds": seconds,
        "frames_per_s": frames / seconds,
        "game_frames_per_s": frames / seconds * action_repeat(run.settings["env"]),
        "updates_per_s": rise(window, "updates") / seconds,
        "dropped_share": rise(window, "blocks_dropped") / max(rise(window, "blocks_produced"), 1.0),
        "batch_size": run.settings["batch_size"],
        "envs_per_actor": run.settings["envs_per_actor"],
    }
    means = {name: mean(window, name, "updates") for name in FIGURES}
    return found | {name: value for name, value in means.items() if value is not None}


def rise(records: RunRecords, name: str) -> float:
    """From the first record to the last; 0 where it is unknown."""
    column = records.column(name)
    column = column[np.isfinite(column)]
    return float(column[-1] - column[0]) if len(column) else 0.0


def number(value: float) -> float | None:
    """None where it is not one, which JSON cannot say."""
    return value if math.isfinite(value) else None


def curve(run: Run) -> list[dict[str, Any]]:
    """Time, frames and returns at some records from the first to the last."""
    names = ("time_s", "frames", "episode_return_mean", "mean_return_100")
    columns = {name: run.records.column(name) for name in names}
    chosen = np.unique(np.linspace(0, run.records.count - 1, MOST_POINTS).astype(int))
    return [
        {name: round(float(of[i]), 3) for name, of in columns.items() if np.isfinite(of[i])}
        for i in chosen
    ]
