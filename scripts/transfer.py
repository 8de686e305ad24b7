"""Does one network that learns several tasks learn them sooner than one network for each?

    .venv/bin/python scripts/transfer.py [--suite minigrid-5] [--seeds 3] [--output runs/transfer]

Three ways to the same tasks, each task with as many frames, F, in the first two:

    together   one network for the K tasks of a preset, K F frames
    expert     a network for each task, F frames; in an update as many columns of the task as the
               first way has of it, and so as many updates
    control    a network for each task with all that the first way has for all of them together:
               its columns, its updates and its K F frames (--without-control leaves it out)

Prints the scores at a quarter, at half and at the end of F, as Markdown, and draws the curves into
`SUITE.svg` in the output folder, where the runs are, too: what is there already is not trained
again. A control is shown as if its frames were those of all tasks: at half of F it has half of K F.
A score is that of the window of 100 training episodes, 1 at most. Intervals are of 95 %, over
seeds. `--data FILE` writes what was measured to a file of JSON lines. What stands behind -- are
options of impala-train, for all runs.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from bench.scores import Trained, Way, draw, kept, score_at, table, trained
from bench.trials import train
from impala_redis.common.presets.table import preset
from impala_redis.common.run.config import Config
from impala_redis.common.tasks.listing import as_text
from impala_redis.common.tasks.task import Task

# Where the scores of the table stand: shares of F.
MOMENTS = (0.25, 0.5, 1.0)
LIMIT_S = 6 * 3600.0


class Suite(NamedTuple):
    """What is trained, and where the runs lie."""

    name: str  # of the preset
    config: Config  # with the frames that were asked for
    folder: Path
    options: Sequence[str]  # further ones, for all runs

    @property
    def tasks(self) -> tuple[Task, ...]:
        """Those of the preset."""
        return self.config.environment.tasks

    def together(self, seed: int) -> Iterator[Trained]:
        """The scores of all tasks in one run."""
        frames = self.config.training.total_frames
        asked = ["--preset", self.name, "--total-frames", str(frames), *self.options]
        run = train(self.folder / f"together-seed{seed}", seed, asked, LIMIT_S)
        return (trained("together", run, task, seed) for task in self.tasks)

    def alone(self, way: str, task: Task, seed: int) -> Trained:
        """The scores of one task in a run of its own, with its part of the columns or with all."""
        parts = len(self.tasks) if way == "expert" else 1
        own = {
            "tasks": as_text((task,)),
            "envs-per-actor": self.config.environment.envs_per_actor // parts,
            "batch-size": self.config.training.batch_size // parts,
            "total-frames": self.config.training.total_frames // parts,
        }
        asked = [f"--{key}={value}" for key, value in own.items()]
        folder = self.folder / f"{way}-{task.name}-seed{seed}"
        run = train(folder, seed, ["--preset", self.name, *self.options, *asked], LIMIT_S)
        return trained(way, run, task, seed)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--suite", default="minigrid-5", help="a preset with tasks")
    parser.add_argument("--seeds", type=int, default=3, choices=range(1, 11), metavar="1..10")
    parser.add_argument("--output", type=Path, default=Path("runs/transfer"))
    parser.add_argument("--frames", type=int, help="F, in place of the preset's")
    parser.add_argument("--tasks", nargs="+", help="experts and controls of these alone")
    parser.add_argument("--without-control", action="store_true")
    parser.add_argument("--data", type=Path)
    parser.add_argument("options", nargs="*")
    asked = parser.parse_args()

    config = preset(asked.suite)
    number = len(config.environment.tasks)
    if asked.frames:
        config = config.replace({"total_frames": asked.frames * number})
    suite = Suite(asked.suite, config, asked.output / asked.suite, asked.options)
    ways = {
        "together": Way("one network", "#0072b2"),
        "expert": Way("an expert for each", "#d55e00"),
        "control": Way("experts with all columns", "#999999", number),
    }
    if asked.without_control:
        del ways["control"]
    found: list[Trained] = []
    for seed in range(asked.seeds):
        found += suite.together(seed)
        for way in list(ways)[1:]:
            for task in suite.tasks:
                if not asked.tasks or task.name in asked.tasks:
                    found.append(suite.alone(way, task, seed))
                    last = score_at(found[-1], float("inf"))
                    print(f"  {way} {task.name}, seed {seed}: {last:.3f}", flush=True)
    frames = config.training.total_frames / number
    print("\n" + table(found, ways, [frames * share for share in MOMENTS]))
    draw(found, ways, frames, suite.folder / f"{asked.suite}.svg")
    if asked.data:
        asked.data.write_text("".join(f"{json.dumps(kept(one, asked.suite))}\n" for one in found))


if __name__ == "__main__":
    main()
