"""Trains CartPole-v0 with three actors, while a program of its own evaluates the live run.

    .venv/bin/python scripts/cartpole_v0.py [--seeds 5] [options of impala-train]

For each seed: a server, `impala-train` (a learner and three actors, each in its own process), and
`impala-eval` again and again, 20 greedy episodes each, with the weights that are in Redis then. The
last line of a seed is its final checkpoint. Exit code 1 unless each of these reaches 200 of 200.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from impala_redis.common.errors import RunMissing
from impala_redis.common.local.embedded import EmbeddedServer

BIN = Path(sys.executable).parent
RUN = "cartpole-v0"
FULL_RETURN = 200.0
TRAIN_LIMIT_S = 600.0


def train(seed: int, url: str, folder: Path, options: list[str]) -> subprocess.Popen[bytes]:
    """Starts a training; what it prints goes to a file."""
    command = [str(BIN / "impala-train"), "--run", RUN, "--redis-url", url, "--seed", str(seed)]
    command += ["--run-dir", str(folder / "run"), *options]
    with (folder / "train.log").open("wb") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


def evaluate(*of: str) -> dict[str, Any] | None:
    """The returns of 20 greedy episodes; None while there is no such run. Raises RuntimeError."""
    done = subprocess.run(
        [str(BIN / "impala-eval"), *of, "--episodes", "20", "--greedy", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    if done.returncode == RunMissing.exit_code:
        return None
    if done.returncode:
        raise RuntimeError(f"impala-eval ended with {done.returncode}: {done.stderr}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def run(seed: int, options: list[str]) -> bool:
    """Trains and evaluates once; returns whether it ends with 200 of 200 in each episode."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with EmbeddedServer(folder) as server:
            started = time.monotonic()
            training = train(seed, server.url, folder, options)
            try:
                while training.poll() is None and time.monotonic() - started < TRAIN_LIMIT_S:
                    asked_s = time.monotonic() - started
                    report = evaluate("--run", RUN, "--redis-url", server.url)
                    if report is not None:
                        tell(seed, asked_s, report, "live")
                    else:
                        time.sleep(0.1)
            finally:
                training.terminate()
                code = training.wait()
            ended_s = time.monotonic() - started
        if code:
            print((folder / "train.log").read_text())
            return False
        report = evaluate("--checkpoint", str(folder / "run"))
        result = json.loads((folder / "run" / "result.json").read_text())
    assert report is not None
    tell(seed, ended_s, report, f"{result['status']} after {result['frames']:,} frames")
    return bool(report["min_return"] == FULL_RETURN)


def tell(seed: int, time_s: float, report: dict[str, Any], what: str) -> None:
    """Prints one line of the table."""
    print(
        f"{seed:4} {time_s:7.1f} {report['weights_version']:8,} {report['mean_return']:7.1f} "
        f"{report['min_return']:7.1f}  {what}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--preset", default="cartpole-v0")
    parser.add_argument("--num-actors", type=int, default=3)
    known, more = parser.parse_known_args()
    options = ["--preset", known.preset, "--num-actors", str(known.num_actors), *more]
    print("seed  time_s  version    mean     min  of 20 greedy episodes")
    full = [run(seed, options) for seed in range(known.seeds)]
    print(f"{sum(full)} of {known.seeds} seeds end with {FULL_RETURN:.0f} in each episode")
    sys.exit(0 if all(full) else 1)


if __name__ == "__main__":
    main()
