"""Trainings with many settings and seeds, one after the other, for the experiments."""

import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from impala_redis.common.records.history import Run, read_run
from impala_redis.common.records.rundir import RunDirectory

TRAIN = Path(sys.executable).parent / "impala-train"
LIMIT_S = 600.0
# Student's t: half a 95 % interval in standard errors, by the number of seeds.
T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78, 6: 2.57, 7: 2.45, 8: 2.36, 9: 2.31, 10: 2.26}


class Estimate(NamedTuple):
    """A mean over seeds, and half its 95 % interval."""

    mean: float
    half: float

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.half:.1f}"


def train(folder: Path, seed: int, options: Sequence[str], limit_s: float = LIMIT_S) -> Run:
    """The run that was trained into the folder with these options: now, or by an earlier call.

    A run there that did not end, or was trained with other options, is removed. It may take up to
    `limit_s` seconds.
    Raises RuntimeError when impala-train fails.
    """
    asked = folder / "asked.txt"
    words = shlex.join([*options, "--seed", str(seed)])
    ended = (RunDirectory(folder).read_result() or {}).get("status") in ("solved", "finished")
    if not ended or not asked.exists() or asked.read_text() != words:
        shutil.rmtree(folder, ignore_errors=True)
        done = subprocess.run(
            [str(TRAIN), "--run-dir", str(folder), "--seed", str(seed), *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            timeout=limit_s,
        )
        if done.returncode:
            raise RuntimeError(f"impala-train into {folder} failed: {done.stderr}")
        asked.write_text(words)
    return read_run(folder)


def late_return(run: Run, share: float) -> float:
    """The mean of all training episodes in the last `share` of a run's frames."""
    frames, returns = run.records.column("frames"), run.records.column("episode_return_mean")
    episodes = np.diff(run.records.column("episodes"), prepend=0.0)
    late = np.isfinite(returns) & (frames > (1 - share) * frames[-1])
    return float(np.average(returns[late], weights=episodes[late]))


def estimate(values: Sequence[float]) -> Estimate:
    """The mean and half its 95 % interval, by Student's t."""
    half = T_95[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return Estimate(statistics.mean(values), half)
