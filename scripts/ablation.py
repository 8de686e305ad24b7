"""The paper's Table 2 and Figure E.1 on CartPole-v1: four corrections of policy lag, with and
without replay, and with a policy lag that is forced to k updates.

    .venv/bin/python scripts/ablation.py [--seeds 5] [--output runs/ablation]

Prints both tables as Markdown and draws `ablation.svg` into the output folder, where the runs are,
too: what is there already is not trained again. A final return is the mean of all training
episodes in the last fifth of a run's frames; intervals are of 95 %, over seeds.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.trials import Estimate, estimate, late_return, train

CORRECTIONS = {
    "vtrace": "V-trace",
    "one_step": "1-step IS",
    "epsilon": "ε-correction",
    "none": "No correction",
}
REPLAY = {"without replay": 0.0, "with replay (50 %)": 0.5}
LAGS = (0, 10, 30, 100)
FRAMES = 500_000
# Gentler settings than the preset's, which are made to stop when the task is solved.
TASK = [
    *("--preset", "cartpole", "--stop-at-return", "none", "--total-frames", str(FRAMES)),
    *("--learning-rate", "0.001", "--entropy-cost", "0.01", "--replay-capacity", "1000"),
    *("--learning-rate-schedule", "constant", "--adam-beta1", "0.9"),
    *("--envs-per-actor", "32", "--batch-size", "32", "--queue-blocks", "4"),
]
LATE_SHARE = 0.2
COLOURS = {"vtrace": "#0072b2", "one_step": "#009e73", "epsilon": "#e69f00", "none": "#d55e00"}


def final_return(output: Path, seeds: int, correction: str, replay: float, lag: int) -> Estimate:
    """The figures of one variant, over seeds."""
    options = [*TASK, "--correction", correction, "--replay-share", str(replay)]
    options += ["--force-lag", str(lag)]
    returns = []
    for seed in range(seeds):
        folder = output / f"{correction}-replay{replay:g}-lag{lag}-seed{seed}"
        run = train(folder, seed, options)
        returns.append(late_return(run, LATE_SHARE))
    found = estimate(returns)
    print(f"  {correction}, replay {replay:g}, lag {lag}: {found}", flush=True)
    return found


def table(head: list[str], rows: Iterator[list[str]]) -> str:
    """The table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def draw(by_lag: dict[str, list[Estimate]], path: Path) -> None:
    """Draws the return against the forced lag, a line for each correction."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes: Any = figure.subplots()
    for number, (correction, found) in enumerate(by_lag.items()):
        places = [place + 0.06 * (number - 1.5) for place in range(len(LAGS))]
        axes.errorbar(
            places,
            [one.mean for one in found],
            [one.half for one in found],
            label=CORRECTIONS[correction],
            color=COLOURS[correction],
            marker="o",
            capsize=3,
        )
    axes.set_xticks(range(len(LAGS)), [str(lag) for lag in LAGS])
    axes.set_xlabel("forced policy lag, updates")
    axes.set_ylabel("final return")
    axes.set_ylim(0, 510)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 11), metavar="2..10")
    parser.add_argument("--output", type=Path, default=Path("runs/ablation"))
    options = parser.parse_args()

    def found(correction: str, replay: float, lag: int) -> Estimate:
        return final_return(options.output, options.seeds, correction, replay, lag)

    replays = {name: [found(c, share, 0) for c in CORRECTIONS] for name, share in REPLAY.items()}
    by_lag = {c: [found(c, 0.0, lag) for lag in LAGS] for c in CORRECTIONS}
    draw(by_lag, options.output / "ablation.svg")
    rows = ([name, *map(str, row)] for name, row in replays.items())
    print("\n" + table(["", *CORRECTIONS.values()], rows))
    rows = ([CORRECTIONS[c], *map(str, row)] for c, row in by_lag.items())
    print("\n" + table(["forced lag, updates", *map(str, LAGS)], rows))


if __name__ == "__main__":
    main()
