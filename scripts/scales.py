"""What do rewards of different size do to a network that learns several tasks, and PopArt to that?

    .venv/bin/python scripts/scales.py [--seeds 3] [--output runs/scales]

Four ways to learn the tasks of a preset with one network:

    even       rewards as they are, without PopArt
    plain      the rewards of each task times a number of its own, from 0.01 to 100
    popart     the same, with --popart
    even-popart  rewards as they are, with --popart

Prints the scores at half of the frames and at the end, as Markdown, and draws the curves into
`SUITE-scales.svg` in the output folder, where the runs are, too: what is there already is not
trained again. Intervals are of 95 %, over seeds. `--data FILE` writes what was measured to a file
of JSON lines. What stands behind -- are options of impala-train for the runs with PopArt.
"""

import argparse
import dataclasses
import itertools
import json
from pathlib import Path

from bench.scores import Trained, Way, draw, kept, table, trained
from bench.trials import train
from impala_redis.common.presets.table import preset
from impala_redis.common.tasks.listing import as_text

# Of one task after the other.
SCALES = (0.01, 1.0, 10.0, 0.1, 100.0)
WAYS = {
    "even": Way("even rewards", "#0072b2"),
    "plain": Way("scaled rewards", "#d55e00"),
    "popart": Way("scaled rewards, PopArt", "#009e73"),
    "even-popart": Way("even rewards, PopArt", "#999999"),
}
MOMENTS = (0.5, 1.0)
LIMIT_S = 6 * 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", default="minigrid-5", help="a preset with tasks")
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 11), metavar="1..10")
    parser.add_argument("--output", type=Path, default=Path("runs/scales"))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--data", type=Path)
    parser.add_argument("options", nargs="*")
    asked = parser.parse_args()

    config = preset(asked.suite)
    even = config.environment.tasks
    scaled = [
        dataclasses.replace(task, reward_scale=scale)
        for task, scale in zip(even, itertools.cycle(SCALES), strict=False)
    ]
    found: list[Trained] = []
    for seed in range(asked.seeds):
        for way in asked.ways:
            options = ["--preset", asked.suite]
            options += [] if way.startswith("even") else [f"--tasks={as_text(scaled)}"]
            options += ["--popart", *asked.options] if way.endswith("popart") else []
            run = train(asked.output / asked.suite / f"{way}-seed{seed}", seed, options, LIMIT_S)
            found += [trained(way, run, task, seed) for task in even]
            print(f"  {way}, seed {seed}: {run.result.get('score')}", flush=True)
    frames = config.training.total_frames / len(even)
    print("\n" + table(found, WAYS, [frames * share for share in MOMENTS]))
    draw(found, WAYS, frames, asked.output / f"{asked.suite}-scales.svg")
    if asked.data:
        asked.data.write_text("".join(f"{json.dumps(kept(one, asked.suite))}\n" for one in found))


if __name__ == "__main__":
    main()
