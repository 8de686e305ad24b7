"""Measures `Learner.update` from memory: no Redis, no other thread, batches played before.

    .venv/bin/python scripts/bench_learning.py [--batch-size 32,256,1024] [--threads 1,2]
    .venv/bin/python scripts/bench_learning.py --preset atari-fast

The limit is the bare computation: the same network, V-trace, gradients and step on the same rows in
plain PyTorch, of which nothing is checked, told or timed, and whose inputs lie ready: floats, or
for convolutions, memory and other kinds of actions what the project's own network sees, frames
stacked. That network is then computed as it is, with an optimizer of PyTorch's. The share of the
limit that is reached is the bare update's time over ours; it is above 1 where ours computes
something faster than plain PyTorch does. Every row counts as a frame: a step of an environment. The
last line is JSON.
"""

import itertools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import torch
from rich.table import Table

from bench import measuring
from bench.measuring import Figures, Spreads
from bench.plain_torch import bare_update
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import ConfigError
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec
from impala_redis.workers.options import CONTEXT

CPU = torch.device("cpu")
# Batches take turns, so that none is always in the processor's cache.
BATCHES = 4
STAGES = ("transfer_s", "forward_s", "backward_s", "optimizer_s")


class Case(NamedTuple):
    """One case, which is measured on its own."""

    batch_size: int
    threads: int

    @property
    def name(self) -> str:
        """Its name in the tables and in the JSON."""
        return f"batch {self.batch_size}, threads {self.threads}"


def play(spec: RunSpec, learner: Learner, batch_size: int) -> list[Batch]:
    """Batches from unrolls of as many environments as a batch has, with the learner's weights."""
    torch.set_num_threads(1)
    actor = Actor(spec, VectorEnvironment(spec.env, batch_size), "bench", 0)
    actor.policy.load(1, learner.weights())
    batches = []
    for _ in range(BATCHES):
        batch = Batch(empty_trajectory(spec, batch_size))
        batch.take(actor.unroll().trajectory, 0, 1)
        batch.rows.mask[:] = True  # every row counts as a frame, for both
        batch.frames = batch.rows.mask.size
        batches.append(batch)
    actor.close()
    return batches


def compiled_update(spec: RunSpec, config: Config, batches: Sequence[Batch]) -> Callable[[], None]:
    """The bare update with its network compiled. Raises ConfigError if that does not work here."""
    update = bare_update(spec, config, batches, compiled=True)
    try:
        update()
    except Exception as error:  # whatever the compilers below it raise
        line = str(error).strip().partition("\n")[0]
        raise ConfigError(f"torch.compile fails here ({line}); leave out --compile") from error
    return update


class Contest:
    """Ours and the bare computation on the same batches, each with a network of its own."""

    def __init__(self, spec: RunSpec, config: Config, case: Case, compiled: bool) -> None:
        self._case, self._rows = case, spec.unroll_length * case.batch_size
        self._learner = Learner(config, TorchEngine(spec, config, CPU))
        batches = play(spec, self._learner, case.batch_size)
        self._batches, self._figures = itertools.cycle(batches), list[Figures]()
        self._updates = {"update_s": self._update, "bare_s": bare_update(spec, config, batches)}
        if compiled:
            self._updates["compiled_s"] = compiled_update(spec, config, batches)

    def measured(self, seconds: float) -> Figures:
        """The seconds that an update takes, ours also by stage."""
        torch.set_num_threads(self._case.threads)
        measuring.side_by_side(self._updates, measuring.WARM_UP_SHARE * seconds)
        self._figures.clear()
        times = measuring.side_by_side(self._updates, seconds)
        stages = {
            name: statistics.fmean(figures[name] for figures in self._figures) for name in STAGES
        }
        return {
            "frames_per_s": self._rows / times["update_s"],
            "limit_frames_per_s": self._rows / times["bare_s"],
            "share": times["bare_s"] / times["update_s"],
            **times,
            **stages,
            "other_s": times["update_s"] - sum(stages.values()),
        }

    def _update(self) -> None:
        self._figures.append(self._learner.update(next(self._batches)))


def tables(figures: dict[str, Spreads]) -> list[Table]:
    """Tables of the speed, and of where an update's time goes."""
    speed = measuring.table("Learner.update from memory", "frames/s", "limit", "share of it")
    names = ["update_s", *STAGES, "other_s", "bare_s"]
    names += ["compiled_s"] if all("compiled_s" in of for of in figures.values()) else []
    times = measuring.table("an update, ms", *(name.removesuffix("_s") for name in names))
    for case, of in figures.items():
        reached, limit = of["frames_per_s"].shown(), of["limit_frames_per_s"].shown()
        speed.add_row(case, reached, limit, of["share"].shown(".2f"))
        times.add_row(case, *(f"{1e3 * of[name].median:.3f}" for name in names))
    return [speed, times]


@click.command(help=__doc__, context_settings=CONTEXT)
@measuring.task_options
@click.option(
    "--batch-size",
    "batch_sizes",
    callback=measuring.whole_numbers,
    help="Trajectories in an update, several with commas: 32,256,1024 if nothing else is said, "
    "with convolutions the settings' own.",
)
@click.option(
    "--threads",
    default="1,2",
    callback=measuring.whole_numbers,
    help="Processor threads to compute with; several with commas.",
)
@click.option("--compile", "compiled", is_flag=True, help="Also the bare one by torch.compile.")
@measuring.timing_options(1.0, "How long ours and the bare one are each measured.")
def main(
    preset_name: str,
    config_file: Path | None,
    unroll_length: int | None,
    batch_sizes: list[int],
    threads: list[int],
    compiled: bool,
    seconds: float,
    repeat: int,
    only_json: bool,
) -> None:
    measuring.begin()
    others_cores = measuring.others_cores()
    with measuring.one_sentence():
        config = measuring.config_of(preset_name, config_file, unroll_length)
        # Nothing drifts, whatever the number of updates: each of them costs the same.
        config = config.replace({"learning_rate": 0.0})
        spec = measuring.spec_of(config)
        sizes = measuring.sizes_of(spec, batch_sizes, config.training.batch_size)
        cases = [Case(b, n) for b in sizes for n in threads]
        contests = [Contest(spec, config, case, compiled) for case in cases]
        runs: list[list[Figures]] = [[] for _ in cases]
        for number in range(repeat):
            for index in measuring.taking_turns(range(len(cases)), number):
                runs[index].append(contests[index].measured(seconds))
    figures = {case.name: measuring.spreads(of) for case, of in zip(cases, runs, strict=True)}
    about = measuring.about(spec, seconds, repeat, others_cores())
    measuring.show(tables(figures), measuring.as_document(about, figures), only_json)


if __name__ == "__main__":
    main()
