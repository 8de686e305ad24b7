"""The short corridor: where REINFORCE and V-trace end, and what policy lag does to them.

    .venv/bin/python scripts/corridor.py [--seeds 5] [--output runs/corridor]

The best policy goes right with probability 0.586. First both presets for each seed; exit code 1 if
one ends further than 0.02 from 0.59. Then V-trace and no correction with a policy lag that is
forced to k updates, drawn over frames into `corridor-lag.svg` in the output folder. What is in the
folder already is not trained again.
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from bench.trials import train
from impala_redis.common.games.corridor import BEST_RIGHT_PROBABILITY
from impala_redis.common.records.history import Run, series

PRESETS = ("corridor-reinforce", "corridor-vtrace")
GOAL, TOLERANCE = 0.59, 0.02
GO_RIGHT = "pi_mean_1"
LAGS = (0, 10, 30, 100)
# A constant rate, because a falling one would hide what lag does.
LAGGING = ["--preset", "corridor-vtrace", "--learning-rate-schedule", "constant"]
LAGGING += ["--total-frames", "2000000"]
CORRECTIONS = {"vtrace": ("V-trace", "#0072b2"), "none": ("no correction", "#d55e00")}


def reach_goal(output: Path, seeds: int) -> bool:
    """Trains both presets; returns whether all runs end at the goal."""
    reached = True
    for preset in PRESETS:
        ends = []
        for seed in range(seeds):
            run = train(output / f"{preset}-seed{seed}", seed, ["--preset", preset])
            ends.append(run.records.last(GO_RIGHT))
            print(f"{preset}  seed {seed}  right {ends[-1]:.3f}", flush=True)
        inside = sum(abs(end - GOAL) <= TOLERANCE for end in ends)
        print(f"{preset}  mean {statistics.mean(ends):.3f}, {inside} of {seeds} at the goal")
        reached = reached and inside == seeds
    return reached


def lagging(output: Path, seeds: int) -> dict[tuple[str, int], list[Run]]:
    """Runs by correction and forced lag."""
    runs = {}
    for lag in LAGS:
        for correction in CORRECTIONS:
            options = [*LAGGING, "--correction", correction, "--force-lag", str(lag)]
            folder = output / f"{correction}-lag{lag}"
            found = [train(Path(f"{folder}-seed{s}"), s, options) for s in range(seeds)]
            runs[correction, lag] = found
            errors = [_late_error(run) for run in found]
            print(
                f"lag {lag:>3}, {correction:<6}  off the best by {statistics.mean(errors):.3f} "
                f"(from {min(errors):.3f} to {max(errors):.3f})",
                flush=True,
            )
    return runs


def _late_error(run: Run) -> float:
    """The mean distance from the best probability in the second half of a run."""
    _, right = series(run.records, GO_RIGHT)
    return float(abs(right[len(right) // 2 :] - BEST_RIGHT_PROBABILITY).mean())


def draw(runs: dict[tuple[str, int], list[Run]], path: Path) -> None:
    """Draws the probability of going right over frames, a panel for each lag."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.8), layout="constrained")
    panels: Any = figure.subplots(2, 2, sharex=True, sharey=True)
    for axes, lag in zip(panels.flat, LAGS, strict=True):
        for correction, (label, colour) in CORRECTIONS.items():
            for number, run in enumerate(runs[correction, lag]):
                frames, right = series(run.records, GO_RIGHT)
                line_label = label if number == 0 else None
                axes.plot(
                    frames / 1e6, right, color=colour, alpha=0.6, linewidth=0.9, label=line_label
                )
        axes.axhline(BEST_RIGHT_PROBABILITY, color="black", linewidth=0.8, linestyle=":")
        axes.set_title(f"lag forced to {lag} updates", fontsize=9)
        axes.grid(alpha=0.3)
    panels[0, 0].legend(frameon=False, fontsize=8)
    figure.supxlabel("frames, millions", fontsize=9)
    figure.supylabel("probability of going right", fontsize=9)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("runs/corridor"))
    options = parser.parse_args()
    reached = reach_goal(options.output, options.seeds)
    draw(lagging(options.output, options.seeds), options.output / "corridor-lag.svg")
    raise SystemExit(not reached)


if __name__ == "__main__":
    main()
