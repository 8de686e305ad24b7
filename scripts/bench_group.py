"""Measures frames per second with 1, 2, 4 and 8 learners that make each update together.

    .venv/bin/python scripts/bench_group.py                     # as many as there are GPUs
    .venv/bin/python scripts/bench_group.py --ranks 1,2 --preset cartpole --seconds 10
    .venv/bin/python scripts/bench_group.py --ranks 1,2,4 -- --num-actors 24 --batch-size 64

Each is a training as a user starts it, `impala-train --learners K` on this machine, which has
torchrun start the learners; what stands after `--` goes to impala-train, each time. With GPUs each
learner has one of its own, and as many are measured as there are; without one, one learner and two.
An update is of the same number of trajectories whatever the number of learners. The numbers take
turns, and the ratio to the first is of the same repeat. Give enough actors: a group that is without
batches, which stands beside its speed, is as fast as its actors. Frames are steps of an
environment. The last line is JSON.
"""

import shlex
import tempfile
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from bench import measuring, steady
from bench.measuring import Figures, Spread, Spreads
from bench.steady import Clock, TrainingFailed, Variant
from impala_redis.common.records.history import RunRecords, mean
from impala_redis.common.transport.situation import STANDBY_SHARE, WAIT_SHARE
from impala_redis.workers.options import CONTEXT

PRESET = "atari"
SIZES = (1, 2, 4, 8)
ON_A_CPU = [1, 2]


def sizes_here() -> list[int]:
    """The numbers of learners for which there is a device each."""
    import torch  # late: a look at the help needs none

    cards = torch.cuda.device_count()
    return [size for size in SIZES if size <= cards] if cards else ON_A_CPU


def variant_of(ranks: int) -> Variant:
    """A training with that many learners; one alone is no group."""
    options = ["--learners", str(ranks)] if ranks > 1 else []
    return Variant(f"{ranks} learner{'s' * (ranks > 1)}", options, {})


def measured(variant: Variant, options: Sequence[str], clock: Clock, folder: Path) -> Figures:
    """The figures of one training after its warm-up. Raises TrainingFailed."""
    others_cores = measuring.others_cores()
    run = steady.train(variant, options, clock, folder)
    others, window = others_cores(), steady.steady(run.records, clock)
    if window.count < 3:
        raise TrainingFailed(
            f"impala-train wrote {window.count} records in {clock.seconds:g} s; give more --seconds"
        )
    return figures_of(window) | {"others_cores": others}


def figures_of(window: RunRecords) -> Figures:
    """The figures of the steady part's records; shares are means over the learners."""
    time_s, frames, updates = (window.column(name) for name in ("time_s", "frames", "updates"))
    seconds = float(time_s[-1] - time_s[0])
    more_updates = float(updates[-1] - updates[0])
    if not more_updates > 0:
        raise TrainingFailed("there was no update meanwhile; give more --seconds")
    return {
        "frames_per_s": float(frames[-1] - frames[0]) / seconds,
        "updates_per_s": more_updates / seconds,
        "update_s": seconds / more_updates,
        "wait_share": _share(window, WAIT_SHARE, "wait_share"),
        "standby_share": _share(window, STANDBY_SHARE, None),
    }


def _share(window: RunRecords, family: str, alone: str | None) -> float:
    """The mean over a group's learners, else the figure of one alone; 0 where it has none."""
    names = [name for name in window.numbers if name.startswith(family)] or [alone]
    shares = [mean(window, name, "time_s") or 0.0 for name in names if name is not None]
    return sum(shares) / len(shares) if shares else 0.0


def in_words(figures: dict[str, Spreads], ratios: dict[str, Spread]) -> Table:
    """All of it, for people."""
    heads = ("frames/s", "to the first", "an update, ms", "without a batch", "standing by")
    shown = measuring.table("learners that share each batch", *heads)
    for name, of in figures.items():
        shown.add_row(
            name,
            of["frames_per_s"].shown(),
            ratios[name].shown(".2f"),
            of["update_s"].shown(".2f", 1e3),
            of["wait_share"].shown(".2f"),
            of["standby_share"].shown(".2f"),
        )
    return shown


@click.command(help=__doc__, context_settings=CONTEXT)
@click.option("--preset", default=PRESET, help="What is trained.")
@click.option("--ranks", callback=measuring.whole_numbers, help="Numbers of learners: 1,2,4.")
@click.option(
    "--warm-up-s", type=click.FloatRange(min=0), default=6.0, help="From the first update on."
)
@measuring.timing_options(20.0, "How long each training is measured, after its warm-up.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- TRAIN_OPTION...]")
def main(
    preset: str,
    ranks: list[int],
    warm_up_s: float,
    seconds: float,
    repeat: int,
    only_json: bool,
    options: tuple[str, ...],
) -> None:
    variants = [variant_of(number) for number in ranks or sizes_here()]
    clock, runs = Clock(warm_up_s, seconds), {variant.name: list[Figures]() for variant in variants}
    measuring.begin()
    with measuring.one_sentence(), tempfile.TemporaryDirectory() as folder:
        for number in range(repeat):
            words = ["--preset", preset, "--seed", str(number), *options]
            for variant in measuring.taking_turns(variants, number):
                place = Path(tempfile.mkdtemp(dir=folder))
                found = measured(variant, words, clock, place)
                runs[variant.name].append(found)
                speed = f"{found['frames_per_s']:,.0f} frames/s"
                click.echo(f"{number + 1} of {repeat}, {variant.name}: {speed}", err=True)
    figures = {name: measuring.spreads(of) for name, of in runs.items()}
    ratios = measuring.ratios_of(runs)
    about = {"preset": preset, "options": shlex.join(options), "seconds": seconds}
    about |= {"warm_up_s": warm_up_s, "repeat": repeat}
    as_dicts = {name: ratio._asdict() for name, ratio in ratios.items()}
    document = measuring.as_document(about, figures, ratios=as_dicts)
    measuring.show([in_words(figures, ratios)], document, only_json)


if __name__ == "__main__":
    main()
