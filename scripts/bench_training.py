"""Measures the whole system on this machine, as a user starts it, beside its limit from memory.

    .venv/bin/python scripts/bench_training.py [--preset cartpole] [--seconds 10] [--repeat 3]
    .venv/bin/python scripts/bench_training.py --actors 1,2,4,8 --no-limits
    .venv/bin/python scripts/bench_training.py --versus "--threads 2" -- --batch-size 256

What stands after `--` goes to impala-train, each time. `--versus` trains with these options more,
variables before them as in a shell ("PYTHONPATH=../other --threads 2"), and gives the ratio to the
first, repeat by repeat; all trainings take turns. The limit is measured with the settings of each
training, without Redis: of the learner on one core (bench_learning.py; ours or the bare update in
torch, what is faster) and, at the same time, an actor on another (bench_acting.py: environment and
policy alone; counted for each core that the learner leaves) it is the slower one. It is the limit
of these computations, and not of the machine: the roofline stands beside it, which is what the
learner's core could train if it did nothing but the network's matrix products (bench_learning.py).
Frames are those of as many fake rows as were trained on. Where actors are slower than their
learner, or the other way round, a core waits; what the system could reach at best if the cores that
it works on were shared perfectly stands beside the environment, the policy and the update, each
alone on a core: a frame then takes all three of their times (of the update as above) on one of the
cores. Frames are steps of an environment; Atari's own, four to a step, are told apart. The last
line is JSON.
"""

import json
import re
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bench import measuring, steady
from bench.measuring import CORES, Figures, Spread, Spreads
from bench.steady import BESIDE, COMPUTING, STAGES, Clock, TrainingFailed, Variant, variant_of
from bench.targets import Target, judged
from impala_redis.common.local import children
from impala_redis.common.records.history import read_run
from impala_redis.workers.options import CONTEXT

SCRIPTS = Path(__file__).parent
LIMIT_TAKES_AT_MOST_S = 300.0
TARGETS = (
    Target("share", "of the limit from memory", ">=", 0.75, "x"),
    Target("non_compute_share", "of the learner's time: not computing", "<=", 0.15, "x"),
)
# Stages of an update from memory, beside those of the training.
ALONE = ("update_s", "transfer_s", *COMPUTING, "other_s")
# Limits in frames/s, each on a core of its own.
PARTS = ("environment", "policy", "update", "bare", "roofline")


def limits(
    variant: Variant, options: Sequence[str], trained: Figures, folder: Path, seconds: float
) -> Figures:
    """What learner and actors reach on a core each, without Redis, and the share of it."""
    settings, config = read_run(folder / "run").settings, str(folder / "run" / "config.toml")

    def words(script: str, seconds: float, *options: str) -> list[str]:
        timing = ("--seconds", str(seconds), "--repeat", "1", "--json")
        return [str(SCRIPTS / script), "--config", config, *options, *timing]

    batch_size, envs = str(settings["batch_size"]), str(settings["envs_per_actor"])
    learning = words("bench_learning.py", seconds, "--batch-size", batch_size, "--threads", "1")
    learning += ["--engine", engine_of([*options, *variant.options])]
    # The actor begins sooner and ends later, so that the learner is never measured alone.
    acting = words("bench_acting.py", seconds, "--envs-per-actor", envs, "--no-torch")
    learner, actor = _at_once(variant, [learning, acting], folder)
    at_once = max(1, min(settings["num_actors"], CORES - 1))
    real_share = trained["real_share"]
    learner_limit = real_share * max(learner["frames_per_s"], learner["limit_frames_per_s"])
    roofline = real_share * learner["roofline_frames_per_s"]
    actors_limit = real_share * actor["limit_frames_per_s"] * at_once
    limit = min(learner_limit, actors_limit)
    steps = settings["envs_per_actor"] * settings["unroll_length"]
    frame_s = 1 / (real_share * actor["limit_frames_per_s"]) + 1 / learner_limit
    shared = min(CORES, settings["num_actors"] + 1) / frame_s
    alone_s = sum(learner[name] for name in COMPUTING)
    return {
        "learner_limit_frames_per_s": learner_limit,
        "actors_limit_frames_per_s": actors_limit,
        "limit_frames_per_s": limit,
        "share": trained["frames_per_s"] / limit,
        "roofline_frames_per_s": roofline,
        "roofline_share": trained["frames_per_s"] / roofline,
        "environment_frames_per_s": real_share * steps / actor["environment_s"],
        "policy_frames_per_s": real_share * steps / actor["policy_s"],
        "update_frames_per_s": real_share * learner["frames_per_s"],
        "bare_frames_per_s": real_share * learner["limit_frames_per_s"],
        "shared_frames_per_s": shared,
        "share_of_shared": trained["frames_per_s"] / shared,
        # What the computation itself loses by not being alone.
        "computing_stretch": trained["computing_s"] / alone_s,
        **{f"alone_{name}": learner[name] for name in ALONE},
    }


def engine_of(options: Sequence[str]) -> str:
    """The engine that options of impala-train name, the last one of them."""
    named = re.findall(r"--engine[= ](\w+)", shlex.join(options))
    return ["auto", *named][-1]


def _at_once(variant: Variant, benches: Sequence[list[str]], folder: Path) -> list[Figures]:
    """The medians of benchmarks of a single case each, in processes of their own."""
    logs = [folder / f"limit-{number}.log" for number, _ in enumerate(benches)]
    processes = []
    try:
        for words, log in zip(benches, logs, strict=True):
            log.unlink(missing_ok=True)
            processes.append(
                children.spawn(
                    [sys.executable, *words],
                    log_file=log,
                    death_signal=signal.SIGTERM,
                    environment=variant.environment,
                )
            )
        codes = [_code(process) for process in processes]
    finally:
        for process in processes:
            children.end(process, 1.0)
    for words, log, code in zip(benches, logs, codes, strict=True):
        if code != 0:
            said = steady.last_words(log)
            raise TrainingFailed(f"{Path(words[0]).name} ended with {code}: {said}")
    return [_medians(log) for log in logs]


def _code(process: "subprocess.Popen[bytes]") -> int | None:
    try:
        return process.wait(LIMIT_TAKES_AT_MOST_S)
    except subprocess.TimeoutExpired:
        return None


def _medians(log: Path) -> Figures:
    (figures,) = json.loads(log.read_text().splitlines()[-1])["figures"].values()
    return {name: of["median"] for name, of in figures.items()}


def speeds(figures: dict[str, Spreads], ratios: dict[str, Spread]) -> Table:
    """A table of how fast each variant is."""
    limited = all("share" in of for of in figures.values())
    heads = ["frames/s trained", *(["ratio"] if len(figures) > 1 else [])]
    heads += ["limit", "share of it", "of the roofline"] if limited else []
    in_games = any(of["game_frames_per_s"] != of["frames_per_s"] for of in figures.values())
    heads += ["of the game"] if in_games else []
    shown = measuring.table("training", *heads, "played", "lag mean", "p95", "dropped")
    for name, of in figures.items():
        cells = [name, of["frames_per_s"].shown()]
        cells += [ratios[name].shown(".3f")] if len(figures) > 1 else []
        if limited:
            cells += [of["limit_frames_per_s"].shown(), of["share"].shown(".2f")]
            cells += [of["roofline_share"].shown(".2f")]
        cells += [of["game_frames_per_s"].shown()] if in_games else []
        cells += [f"{of['played_per_s'].median:,.0f}", of["policy_lag_mean"].shown(".1f")]
        cells += [f"{of['policy_lag_p95'].median:.1f}", f"{of['dropped_share'].median:.3f}"]
        shown.add_row(*cells)
    others = (f"{of['others_cores'].high:.1f}" for of in figures.values())
    shown.caption = f"cores that other programs had meanwhile: {', '.join(others)}"
    return shown


def limits_of(figures: dict[str, Spreads]) -> Table:
    """A table of what each part reaches alone, and all of them at best."""
    heads = [*PARTS, "shared perfectly", "trained", "share of it"]
    shown = measuring.table("frames/s, each alone on a core, and on all at best", *heads)
    for name, of in figures.items():
        if "share_of_shared" in of:
            names = [f"{part}_frames_per_s" for part in (*PARTS, "shared")]
            cells = [of[name].shown() for name in (*names, "frames_per_s")]
            shown.add_row(name, *cells, of["share_of_shared"].shown(".2f"))
    return shown


def stages(figures: dict[str, Spreads]) -> Table:
    """A table of where an update's time goes, also for one from memory."""
    names = ["update_s", *STAGES, *steady.AS_GRAPH, "other_s"]
    names = [name for name in names if any(name in of for of in figures.values())]
    heads = [name.removesuffix("_s") for name in names]
    heads += ["not computing", "feeder cpu", "publisher cpu"]
    shown = measuring.table("an update, ms", *heads)
    for name, of in figures.items():
        share = of["non_compute_share"].shown(".2f")
        shown.add_row(name, *_ms(of, names), share, *_ms(of, BESIDE))
        if "share" in of:
            shown.add_row("  from memory", *_ms(of, [f"alone_{stage}" for stage in names]))
    return shown


def _ms(of: Spreads, names: Iterable[str]) -> Iterator[str]:
    """The medians of what was measured."""
    return (f"{1e3 * of[name].median:.3f}" if name in of else "" for name in names)


def against_targets(runs: dict[str, list[Figures]]) -> list[dict[str, Any]]:
    """The targets beside what each variant reached, for JSON."""
    return [
        judged(name, target, [figures[target.figure] for figures in of])
        for name, of in runs.items()
        for target in TARGETS
        if target.figure in of[0]
    ]


def in_words(rows: Sequence[dict[str, Any]]) -> Table:
    """The targets, for people."""
    shown = measuring.table("targets", "what", "target", "reached", "")
    for row in rows:
        sense = {"<=": "at most", ">=": "at least"}[row["sense"]]
        met = "met" if row["met"] else "NOT met"
        value = Spread(row["value"], row["low"], row["high"]).shown(".2f")
        shown.add_row(row["part"], row["words"], f"{sense} {row['limit']}", value, met)
    return shown


def chosen(actors: list[int], versus: tuple[str, ...]) -> list[Variant]:
    """The variants, which are trained in turns."""
    if actors and versus:
        raise click.UsageError("give --actors or --versus, not both")
    if actors:
        return [Variant(f"{n} actors", ["--num-actors", str(n)], {}) for n in actors]
    return [Variant("as given", [], {}), *map(variant_of, dict.fromkeys(versus))]


@click.command(help=__doc__, context_settings=CONTEXT)
@click.option("--preset", default=measuring.PRESET, help="What is trained.")
@click.option(
    "--actors", callback=measuring.whole_numbers, help="Numbers of actors to compare: 1,2,4,8."
)
@click.option("--versus", multiple=True, help="Options to compare with none; several times.")
@click.option("--limits/--no-limits", "with_limits", default=True, help="Whether to measure them.")
@click.option(
    "--warm-up-s",
    type=click.FloatRange(min=0),
    default=6.0,
    help="From the first update on; in the sixth second TensorBoard's writer is imported.",
)
@measuring.timing_options(10.0, "How long each training is measured, after its warm-up.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED, metavar="[-- TRAIN_OPTION...]")
def main(
    preset: str,
    actors: list[int],
    versus: tuple[str, ...],
    with_limits: bool,
    warm_up_s: float,
    seconds: float,
    repeat: int,
    only_json: bool,
    options: tuple[str, ...],
) -> None:
    variants, clock = chosen(actors, versus), Clock(warm_up_s, seconds)
    runs: dict[str, list[Figures]] = {variant.name: [] for variant in variants}
    measuring.begin()
    with measuring.one_sentence(), tempfile.TemporaryDirectory() as folder:
        for number in range(repeat):
            words = ["--preset", preset, "--seed", str(number), *options]
            for variant in measuring.taking_turns(variants, number):
                place = Path(tempfile.mkdtemp(dir=folder))
                trained = steady.measured(variant, words, clock, place)
                if with_limits:
                    trained |= limits(variant, words, trained, place, min(1.0, seconds / 5))
                runs[variant.name].append(trained)
                speed = f"{trained['frames_per_s']:,.0f} frames/s"
                click.echo(f"{number + 1} of {repeat}, {variant.name}: {speed}", err=True)
    figures = {name: measuring.spreads(of) for name, of in runs.items()}
    ratios, rows = measuring.ratios_of(runs), against_targets(runs)
    about = {"preset": preset, "options": shlex.join(options), "seconds": seconds}
    about |= {"warm_up_s": warm_up_s, "repeat": repeat}
    document = measuring.as_document(
        about,
        figures,
        ratios={name: ratio._asdict() for name, ratio in ratios.items()},
        targets=rows,
    )
    tables = [speeds(figures, ratios), *([limits_of(figures)] if with_limits else [])]
    tables += [stages(figures), in_words(rows)]
    measuring.show(tables, document, only_json)


if __name__ == "__main__":
    main()
