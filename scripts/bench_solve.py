"""Trains CartPole-v1 (or another preset) once for each seed and says how long it took to solve it.

    .venv/bin/python scripts/bench_solve.py [--seeds 10] [--preset cartpole] [--episodes 20]
    .venv/bin/python scripts/bench_solve.py --preset masked-cartpole --seeds 3 -- --lstm-size 0
    .venv/bin/python scripts/bench_solve.py --versus ../other/.venv/bin

What stands after `--` goes to impala-train. Seconds are from the command's start to the last
update, start-up included; `command` is until it has ended. Greedy is the mean return of evaluation
episodes with the final checkpoint. With `--keep` the run directories stay, for impala-report.

Beside each training `import torch` is timed in the same minute, the median of three fresh
interpreters: a yardstick of the machine at that time, which any program that learns by PyTorch pays
before its first update. `/torch` is the seconds to solve over it. With `--versus` the programs of
another checkout train too, in turns, and the last figure is our seconds over theirs, seed by seed.
The last line is JSON.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.measuring import taking_turns
from impala_redis.common.presets.table import preset

BIN = Path(sys.executable).parent
IMPORTS = 3
HEADS = ("seed", "status", "wall_s", "/torch", "command_s", "learner_s", "frames", "frames/s")
Result = dict[str, Any]


def import_torch_s() -> float:
    """The seconds of `python -c "import torch"`, the median of three."""
    taken_s = []
    for _ in range(IMPORTS):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        taken_s.append(time.monotonic() - started)
    return statistics.median(taken_s)


def run(programs: Path, seed: int, options: argparse.Namespace, folder: Path) -> Result:
    """One training and its evaluation by the programs of a folder."""
    started = time.monotonic()
    train = [str(programs / "impala-train"), "--preset", options.preset, "--seed", str(seed)]
    code = subprocess.run(
        [*train, "--run-dir", str(folder), *options.training],
        stdout=subprocess.DEVNULL,
        timeout=options.limit_s,
    ).returncode
    command_s = time.monotonic() - started
    evaluated = subprocess.run(
        [
            *(str(programs / "impala-eval"), "--checkpoint", str(folder), "--json"),
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


def line(name: str, r: Result) -> str:
    """A training's line for people."""
    return (
        f"{r['seed']:4}  {r['status']:<8} {r['wall_s']:7.2f} {r['torch_ratio']:7.2f} "
        f"{r['command_s']:10.2f} {r['learner_s']:10.2f} {r['frames']:9,} "
        f"{r['frames_per_s'] or 0:9,} {r['greedy']:7.1f}  {name}"
    )


def summary(results: Sequence[Result], goal: float | None) -> dict[str, Any]:
    """Medians, the worst, and whether every final policy reaches the goal greedily."""

    def median(name: str) -> float:
        return statistics.median(r[name] for r in results)

    return {
        "solved": sum(r["status"] == "solved" for r in results),
        "wall_s_median": median("wall_s"),
        "wall_s_worst": max(r["wall_s"] for r in results),
        "import_torch_s_median": round(median("import_torch_s"), 3),
        "torch_ratio_median": round(median("torch_ratio"), 3),
        "torch_ratio_worst": round(max(r["torch_ratio"] for r in results), 3),
        "command_s_median": median("command_s"),
        "learner_s_median": median("learner_s"),
        "frames_median": median("frames"),
        "greedy_least": min(r["greedy"] for r in results),
        "greedy_all_reach_goal": goal is not None and all(r["greedy"] >= goal for r in results),
    }


def ratio_of(ours: Sequence[Result], theirs: Sequence[Result]) -> dict[str, float]:
    """Our seconds to solve over theirs, seed by seed."""
    ratios = [mine["wall_s"] / other["wall_s"] for mine, other in zip(ours, theirs, strict=True)]
    spread = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return {name: round(value, 3) for name, value in spread.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--preset", default="cartpole")
    parser.add_argument("--episodes", type=int, default=20, help="of each evaluation")
    parser.add_argument("--limit-s", type=float, default=300.0, help="of each training")
    parser.add_argument("--keep", type=Path, help="a directory for the run directories")
    parser.add_argument("--versus", type=Path, help="a directory with another checkout's programs")
    parser.add_argument("training", nargs="*", help="options of impala-train, after --")
    options = parser.parse_args()
    goal = preset(options.preset).training.stop_at_return
    places = {"ours": BIN} | ({"theirs": options.versus} if options.versus else {})
    results: dict[str, list[Result]] = {name: [] for name in places}
    print(*HEADS, "greedy")
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(options.seeds):
            for name in taking_turns(list(places), seed):
                place = (options.keep or Path(folder)) / name / str(seed)
                torch_s = import_torch_s()
                r = run(places[name], seed, options, place)
                r |= {"seed": seed, "import_torch_s": torch_s, "torch_ratio": r["wall_s"] / torch_s}
                results[name].append(r)
                print(line(name, r), flush=True)
    document: dict[str, Any] = {"preset": options.preset, "seeds": options.seeds}
    document |= summary(results["ours"], goal)
    if options.versus:
        document["theirs"] = summary(results["theirs"], goal)
        document["ratio"] = ratio_of(results["ours"], results["theirs"])
    print(json.dumps(document))


if __name__ == "__main__":
    main()
