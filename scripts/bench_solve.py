"""Trains CartPole-v1 (or another preset) once for each seed and says how long it took to solve it.

    .venv/bin/python scripts/bench_solve.py [--seeds 10] [--preset cartpole]

Seconds are from the command's start to the last update, start-up included; `command` is until it
has ended. Greedy is the mean return of 20 evaluation episodes with the final checkpoint.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BIN = Path(sys.executable).parent


def run(seed: int, preset: str, folder: Path) -> dict[str, Any]:
    """One training and its evaluation."""
    started = time.monotonic()
    train = [str(BIN / "impala-train"), "--preset", preset, "--seed", str(seed)]
    code = subprocess.run(
        [*train, "--run-dir", str(folder)], stdout=subprocess.DEVNULL, timeout=300
    ).returncode
    command_s = time.monotonic() - started
    evaluated = subprocess.run(
        [str(BIN / "impala-eval"), "--checkpoint", str(folder), "--json"],
        capture_output=True,
        check=True,
    )
    result = json.loads((folder / "result.json").read_text())
    return result | {
        "code": code,
        "command_s": round(command_s, 2),
        "greedy": json.loads(evaluated.stdout)["mean_return"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--preset", default="cartpole")
    options = parser.parse_args()
    print("seed  status    wall_s  command_s  learner_s    frames  frames/s  greedy")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            r = run(seed, options.preset, Path(folder) / str(seed))
            results.append(r)
            print(
                f"{seed:4}  {r['status']:<8} {r['wall_s']:7.2f} {r['command_s']:10.2f} "
                f"{r['learner_s']:10.2f} {r['frames']:9,} {r['frames_per_s'] or 0:9,} "
                f"{r['greedy']:7.1f}"
            )
    summary = {
        "preset": options.preset,
        "seeds": options.seeds,
        "solved": sum(r["status"] == "solved" for r in results),
        "wall_s_median": statistics.median(r["wall_s"] for r in results),
        "wall_s_worst": max(r["wall_s"] for r in results),
        "command_s_median": statistics.median(r["command_s"] for r in results),
        "learner_s_median": statistics.median(r["learner_s"] for r in results),
        "frames_median": statistics.median(r["frames"] for r in results),
        "greedy_least": min(r["greedy"] for r in results),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
