"""Ours: impala-train, which starts a Redis server, a learner and actors as processes of their own.

Steady rate: with the options that bench_peers.py was given, over its records after the warm-up.
Solving: the preset cartpole; `wall_s` in result.json is from the command's start to its last
update. It runs in this project's environment, with the folder of the scripts on its path.
"""

import json
import signal
import subprocess
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any

from bench import steady
from impala_redis.common.errors import ImpalaError
from meter import read_options, tell

PACKAGES = ("impala-redis", "torch", "gymnasium", "numpy")


def steady_rate(options: Namespace, folder: Path) -> dict[str, Any]:
    """Frames per second, from the first record after the warm-up to the last that counts."""
    clock = steady.Clock(options.warmup_s, options.seconds)
    seed = ["--seed", str(options.seed)]
    records = steady.train(steady.variant_of(options.ours), seed, clock, folder).records
    window = steady.steady(records, clock)
    if window.count < 2:
        raise SystemExit("error: impala-train wrote fewer than 2 records; give more --seconds")
    frames, time_s = window.column("frames"), window.column("time_s")
    measured_s = float(time_s[-1] - time_s[0])
    fps = float(frames[-1] - frames[0]) / measured_s
    return {"fps": fps, "measured_s": measured_s, "frames": int(frames[-1])}


def solving(options: Namespace, folder: Path) -> dict[str, Any]:
    """Trains until the task is solved, or for the limit."""
    run = folder / "run"
    command = [str(steady.TRAIN), "--preset", "cartpole", "--run-dir", str(run)]
    training = subprocess.Popen([*command, "--seed", str(options.seed)])
    try:
        training.wait(options.limit_s)
    except subprocess.TimeoutExpired:
        training.send_signal(signal.SIGINT)
        training.wait(steady.END_LIMIT_S)
    result = json.loads((run / "result.json").read_text())
    solve_s = result["wall_s"] if result["status"] == "solved" else None
    best = result["mean_return_100"] or 0.0
    return {"solve_s": solve_s, "frames": result["frames"], "best_return": best}


def main() -> None:
    options = read_options()
    with tempfile.TemporaryDirectory() as folder:
        try:
            if options.what == "fps":
                tell(f"impala-train {options.ours}", steady_rate(options, Path(folder)), *PACKAGES)
            else:
                tell("impala-train --preset cartpole", solving(options, Path(folder)), *PACKAGES)
        except ImpalaError as error:
            raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
