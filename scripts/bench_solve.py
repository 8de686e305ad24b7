"""Trains CartPole-v1 (or another preset) once for each seed and says how long it took to solve it.

    .venv/bin/python scripts/bench_solve.py [--seeds 10] [--preset cartpole] [--episodes 20]
    .venv/bin/python scripts/bench_solve.py --preset masked-cartpole --seeds 3 -- --lstm-size 0

What stands after `--` goes to impala-train. Seconds are from the command's start to the last
update, start-up included; `command` is until it has ended. Greedy is the mean return of evaluation
episodes with the final checkpoint. With `--keep` the run directories stay, for impala-report.
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


def run(seed: int, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One training and its evaluation."""
    started = time.monotonic()
    train = [str(BIN / "impala-train"), "--preset", options.preset, "--seed", str(seed)]
    code = subprocess.run(
        [*train, "--run-dir", str(folder), *options.training],
        stdout=subprocess.DEVNULL,
        timeout=options.limit_s,
    ).returncode
    command_s = time.monotonic() - started
    evaluated = subprocess.run(
        [
            *(str(BIN / "impala-eval"), "--checkpoint", str(folder), "--json"),
            *("--episodes", str(options.episodes)),
        ],
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
    parser.add_argument("--episodes", type=int, default=20, help="of each evaluation")
    parser.add_argument("--limit-s", type=float, default=300.0, help="of each training")
    parser.add_argument("--keep", type=Path, help="a directory for the run directories")
    parser.add_argument("training", nargs="*", help="options of impala-train, after --")
    options = parser.parse_args()
    print("seed  status    wall_s  command_s  learner_s    frames  frames/s  greedy")
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            r = run(seed, options, (options.keep or Path(folder)) / str(seed))
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
