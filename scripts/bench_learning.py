"""Measures `Learner.update` from memory: no Redis, no other thread, batches played before.

    .venv/bin/python scripts/bench_learning.py [--batch-size 32,256,1024] [--threads 1,2]
    .venv/bin/python scripts/bench_learning.py --preset atari-fast

Every engine that can compute the network does, and so do two yardsticks in the same turns. The
roofline is the machine's: the operations of the network's matrix products (bench/roofline.py), and
how fast numpy multiplies such matrices on as many threads at best. No update can reach it, since it
also has activations, a loss and a step. The other is the limit of this computation in torch, the
bare update: the same network, V-trace, gradients and step on the same rows in plain PyTorch, of
which nothing is checked, told or timed, and whose inputs lie ready: floats, or for convolutions,
memory and other kinds of actions what the project's own network sees, frames stacked. That network
is then computed as it is, with an optimizer of PyTorch's. The share of a yardstick is the time it
would take over ours; of the bare update it is above 1 where ours computes something faster than
plain PyTorch does.

Times and frames/s are means over the calls, as a training has them. The roofline compares medians,
and the fastest tenths, which a busy machine disturbs least. Every row counts as a frame: a step of
an environment. The last line is JSON.
"""

import itertools
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import click
import torch
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench import measuring, roofline
from bench.measuring import Figures, Spreads
from bench.plain_torch import bare_update
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import ConfigError
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.engines import make_engine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec
from impala_redis.workers.options import CONTEXT

# Batches take turns, so that none is always in the processor's cache.
BATCHES = 4
STAGES = ("transfer_s", "forward_s", "backward_s", "optimizer_s")
# The table of the roofline: heads, the figures below them, and their forms.
ROOFLINE = {
    "GFLOP/s": ("gflops", ".1f"),
    "product's GFLOP/s": ("product_gflops", ".1f"),
    "share": ("roofline_share", ".2f"),
    "frames/s at most": ("roofline_frames_per_s", ",.0f"),
}
# What an update can be computed by, and the choice that training makes among them.
ENGINES, AUTO = ("numpy", "torch"), "auto"


class Case(NamedTuple):
    """One case, in which all engines take turns."""

    batch_size: int
    threads: int

    def name(self, engine: str) -> str:
        """An engine's name in the tables and in the JSON."""
        return f"{engine}, batch {self.batch_size}, threads {self.threads}"


def learners_by(
    engines: Sequence[str], spec: RunSpec, config: Config, threads: int
) -> dict[str, Learner]:
    """A new learner for each engine; for each that can compute this network, if none is named.

    Raises ConfigError.
    """
    learners = {}
    for engine in engines or ENGINES:
        try:
            made = make_engine(engine, "cpu", threads, spec, config)
        except ConfigError:
            if engines:
                raise
            continue
        learners[engine] = Learner(config, made)
    return learners


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
    """Our engines, the bare computation and a matrix product, on the same batches."""

    def __init__(
        self, spec: RunSpec, config: Config, case: Case, engines: Sequence[str], compiled: bool
    ) -> None:
        self._case, self._rows = case, spec.unroll_length * case.batch_size
        self._flop_a_frame = roofline.flop_a_frame(spec, spec.unroll_length)
        self._product = roofline.product_of(spec, case.batch_size * (spec.unroll_length + 1))
        learners = learners_by(engines, spec, config, case.threads)
        self._batches = play(spec, next(iter(learners.values())), case.batch_size)
        self._stages = {engine: list[Figures]() for engine in learners}
        self._calls = {engine: self._updates_of(engine, one) for engine, one in learners.items()}
        self._calls["bare"] = bare_update(spec, config, self._batches)
        self._calls["product"] = self._product.call
        if compiled:
            self._calls["compiled"] = compiled_update(spec, config, self._batches)

    def measured(self, seconds: float) -> dict[str, Figures]:
        """The seconds that an update of each engine takes, also by stage, and the yardsticks."""
        torch.set_num_threads(self._case.threads)
        measuring.timed(self._calls, measuring.WARM_UP_SHARE * seconds)
        for figures in self._stages.values():
            figures.clear()
        taken_s = measuring.timed(self._calls, seconds)
        return {self._case.name(engine): self._figures(engine, taken_s) for engine in self._stages}

    def _updates_of(self, engine: str, learner: Learner) -> Callable[[], None]:
        batches = itertools.cycle(self._batches)

        def update() -> None:
            self._stages[engine].append(learner.update(next(batches))[-1].figures)

        return update

    def _figures(self, engine: str, taken_s: dict[str, list[float]]) -> Figures:
        means = {name: statistics.fmean(of) for name, of in taken_s.items()}
        medians = {name: statistics.median(of) for name, of in taken_s.items()}
        tenths = {name: measuring.fastest_tenth(of) for name, of in taken_s.items()}
        stages = {
            name: statistics.fmean(figures[name] for figures in self._stages[engine])
            for name in STAGES
        }
        update_s, at_best = means[engine], self._rates(tenths[engine], tenths["product"])
        return {
            "frames_per_s": self._rows / update_s,
            "limit_frames_per_s": self._rows / means["bare"],
            "share": means["bare"] / update_s,
            "update_s": update_s,
            "update_p10_s": tenths[engine],
            **{f"{name}_s": means[name] for name in ("bare", "compiled") if name in means},
            **stages,
            "other_s": update_s - sum(stages.values()),
            "kflop_a_frame": self._flop_a_frame / 1e3,
            **self._rates(medians[engine], medians["product"]),
            **{f"{name}_p10": rate for name, rate in at_best.items()},
        }

    def _rates(self, update_s: float, product_s: float) -> Figures:
        """The operations per second of an update, and below which roofline they are."""
        reached = self._flop_a_frame * self._rows / update_s
        product = self._case.threads * self._product.flop / product_s
        return {
            "gflops": reached / 1e9,
            "product_gflops": product / 1e9,
            "roofline_frames_per_s": product / self._flop_a_frame,
            "roofline_share": reached / product,
        }


def tables(figures: dict[str, Spreads]) -> list[Table]:
    """Tables of the speed, of the roofline, and of where an update's time goes."""
    speed = measuring.table(
        "Learner.update from memory", "frames/s", "limit in torch", "share of it"
    )
    heads = ("kFLOP a frame", *ROOFLINE, "share, fastest tenths")
    below = measuring.table("below the roofline of matrix products, medians", *heads)
    names = ["update_s", *STAGES, "other_s", "bare_s"]
    names += ["compiled_s"] if all("compiled_s" in of for of in figures.values()) else []
    times = measuring.table("an update, ms", *(name.removesuffix("_s") for name in names))
    for case, of in figures.items():
        reached, limit = of["frames_per_s"].shown(), of["limit_frames_per_s"].shown()
        speed.add_row(case, reached, limit, of["share"].shown(".2f"))
        rates = (of[name].shown(form) for name, form in ROOFLINE.values())
        flop, at_best = of["kflop_a_frame"].shown(",.1f"), of["roofline_share_p10"].shown(".2f")
        below.add_row(case, flop, *rates, at_best)
        times.add_row(case, *(f"{1e3 * of[name].median:.3f}" for name in names))
    return [speed, below, times]


def engines_named(context: click.Context, option: click.Parameter, text: str | None) -> list[str]:
    """The engines that --engine names; nothing as none."""
    names = list(dict.fromkeys(name.strip() for name in text.split(","))) if text else []
    if unknown := sorted(set(names) - {*ENGINES, AUTO}):
        raise click.BadParameter(f"{', '.join(unknown)} is none of {', '.join((*ENGINES, AUTO))}")
    return names


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
@click.option(
    "--engine",
    "engines",
    callback=engines_named,
    help="By what to compute, in turns; several with commas: all that can if nothing is said; auto "
    "is what training takes.",
)
@click.option("--compile", "compiled", is_flag=True, help="Also the bare one by torch.compile.")
@measuring.timing_options(1.0, "How long ours and the bare one are each measured.")
def main(
    preset_name: str,
    config_file: Path | None,
    unroll_length: int | None,
    batch_sizes: list[int],
    threads: list[int],
    engines: list[str],
    compiled: bool,
    seconds: float,
    repeat: int,
    only_json: bool,
) -> None:
    measuring.begin()
    others_cores = measuring.others_cores()
    # torch has threads of its own; numpy's are the product's, which is measured on one.
    with measuring.one_sentence(), threadpool_limits(limits=1, user_api="blas"):
        config = measuring.config_of(preset_name, config_file, unroll_length)
        # Nothing drifts, whatever the number of updates: each of them costs the same.
        config = config.replace({"learning_rate": 0.0})
        spec = measuring.spec_of(config)
        sizes = measuring.sizes_of(spec, batch_sizes, config.training.batch_size)
        cases = [Case(b, n) for b in sizes for n in threads]
        contests = [Contest(spec, config, case, engines, compiled) for case in cases]
        runs: list[list[dict[str, Figures]]] = [[] for _ in cases]
        for number in range(repeat):
            for index in measuring.taking_turns(range(len(cases)), number):
                runs[index].append(contests[index].measured(seconds))
    figures = {
        name: measuring.spreads([repetition[name] for repetition in of])
        for of in runs
        for name in of[0]
    }
    about = measuring.about(spec, seconds, repeat, others_cores())
    measuring.show(tables(figures), measuring.as_document(about, figures), only_json)


if __name__ == "__main__":
    main()
