"""impala-eval: plays episodes with a run's live weights or a checkpoint's, and reports the returns.

The same seed plays the same episodes, but not the same with --video as without. Nothing is written
to Redis.
"""

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from impala_redis.common.acting.policies import make_policy
from impala_redis.common.blocks.weights import VersionedWeights
from impala_redis.common.envs import video
from impala_redis.common.envs.trust import check_environment
from impala_redis.common.errors import EXIT_INTERRUPTED, ConfigError
from impala_redis.common.playing.saved import from_checkpoint, from_live_run
from impala_redis.common.records.returns import shown_return
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings.env_id import names_one, travelling
from impala_redis.common.settings.json_object import EMPTY
from impala_redis.common.tasks.listing import told
from impala_redis.common.user_code.modules import check_network
from impala_redis.workers import playing_tasks, process, saying, stopping
from impala_redis.workers.command import Program
from impala_redis.workers.options import CONTEXT, option, shared
from impala_redis.workers.plan import run_name
from impala_redis.workers.playing import EpisodeResult, PlaySettings, play_together, record
from impala_redis.workers.playing_tasks import figures_of, one_by_one, only_tasks


@click.command(cls=Program, context_settings=CONTEXT)
@shared("redis-url", "that-run")
@option(
    "checkpoint",
    parameter="checkpoint_path",
    type=click.Path(path_type=Path),
    help="A run directory, or one checkpoint file, instead of a live run.",
)
@option(
    "env",
    parameter="env_id",
    # No variable: IMPALA_ENV names what is trained, and would take the place of the run's own.
    allow_from_autoenv=False,
    show_default="the run's",
    help="Play in this environment instead, which must have the run's spaces: an id as for "
    "training. It is made as registered, without the run's own arguments and wrappers.",
)
@option(
    "task",
    parameter="task_names",
    multiple=True,
    allow_from_autoenv=False,
    metavar="NAME",
    show_default="all of the run's",
    help="A task of the run to play, of several; may be given several times.",
)
@option(
    "episodes",
    type=click.IntRange(1, 100_000),
    default=20,
    help="Episodes to play, of a run with several tasks in each of them.",
)
@option(
    "greedy",
    off="sampled",
    default=True,
    help="Take the likeliest action, or draw from the policy.",
)
@option(
    "max-steps",
    type=click.IntRange(min=1),
    default=100_000,
    help="Cut an episode that does not end by then.",
)
@option("seed", type=click.IntRange(min=0), default=0, help="Seed of the episodes and the draws.")
@option(
    "video",
    parameter="video_directory",
    type=click.Path(path_type=Path),
    help="Record every one of the --episodes as an mp4 in this directory. They are then played one "
    "by one, and are others than the same --seed plays without it. Needs the extra packages "
    "[video].",
)
@option("json", parameter="as_json", is_flag=True, help="Print one JSON object.")
@shared("env-module", "network-module", "log-level")
@click.pass_context
def main(
    context: click.Context,
    redis_url: str,
    run: str | None,
    checkpoint_path: Path | None,
    env_id: str | None,
    task_names: tuple[str, ...],
    episodes: int,
    greedy: bool,
    max_steps: int,
    seed: int,
    video_directory: Path | None,
    as_json: bool,
    env_module: tuple[str, ...],
    network_module: tuple[str, ...],
    log_level: str,
) -> None:
    """Plays episodes with a run's weights (--run) or a checkpoint's (--checkpoint)."""
    stopping.set_up_logging(log_level, "eval")
    stop = stopping.StopFlag()
    stop.end_within_s = stopping.END_WITHIN_S
    write = process.take_output()
    ending, threads = stopping.ending_in_time(), process.one_computing_thread()
    with ending as at_end, stopping.exit_codes(stop), threads:
        if checkpoint_path is not None and (
            context.get_parameter_source("run") is ParameterSource.ENVIRONMENT
        ):
            run = None  # a typed option outranks a variable
        if (run is None) == (checkpoint_path is None):
            raise ConfigError("evaluate what? give --run NAME or --checkpoint PATH, one of them")
        if video_directory is not None:
            video.prepare_directory(video_directory)
        if checkpoint_path is not None:
            trained, weights = from_checkpoint(checkpoint_path)
        else:
            trained, weights = from_live_run(redis_url, run_name(run))
        spec = to_be_played(trained, env_id, env_module, network_module, task_names)
        settings = PlaySettings(greedy, max_steps, seed)
        results, videos = play_all(spec, weights, episodes, settings, video_directory, stop, at_end)
        if spec.tasks:
            report = playing_tasks.make_report(spec, weights.version, results, settings)
        else:
            trained_in = told(trained.env, trained.tasks)
            report = make_report(spec, weights.version, results[0], settings, trained_in)
        if video_directory is not None:
            report["videos"] = [str(path) for path in videos]
        write(saying.as_json(report) if as_json else in_words(report))


def play_all(
    spec: RunSpec,
    weights: VersionedWeights,
    episodes: int,
    settings: PlaySettings,
    video_directory: Path | None,
    stop: stopping.StopFlag,
    at_end: ExitStack,
) -> tuple[list[list[EpisodeResult]], list[Path]]:
    """The episodes of each task, or of the run's one environment, and their videos if recorded.

    What is played in a task does not depend on which others are played. Raises SystemExit if
    stopped; and as `play_together` and `record`.
    """
    results: list[list[EpisodeResult]] = []
    videos: list[Path] = []
    for number, one in enumerate(one_by_one(spec)):
        at_end.close()  # the environments of the task before
        policy = make_policy(one, np.random.default_rng([settings.seed, 1]))
        policy.load(weights.version, weights.weights)
        if video_directory is None:
            played = play_together(one, policy, episodes, settings, stop, at_end)
        else:
            task = f"{number}-{spec.tasks[number].name}" if spec.tasks else ""
            played, files = record(one, policy, episodes, settings, video_directory, stop, task)
            videos += files
        if stop():
            raise SystemExit(EXIT_INTERRUPTED)
        results.append(played)
    return results, videos


def to_be_played(
    spec: RunSpec,
    env_id: str | None,
    env_modules: tuple[str, ...],
    network_modules: tuple[str, ...],
    tasks: tuple[str, ...] = (),
) -> RunSpec:
    """The spec of what is played: of the run or some of its tasks, or of another environment.

    That one is made as it is registered, also if it is the run's own id. Whoever has typed it
    trusts it. Raises ConfigError: nobody here has named a module that makes a part of the run, the
    run has no such task, or several environments are named.
    """
    check_network(spec.network, network_modules)
    if env_id is None:
        spec = only_tasks(spec, tasks)
        check_environment(spec, env_modules)
        return spec
    if tasks:
        raise ConfigError("--env and --task both say what is played; give one of them")
    if "," in env_id and not names_one(env_id):
        raise ConfigError(
            f"--env names {env_id[:80]}, and takes one environment here; evaluate one after the "
            "other, or leave --env out: tasks of the run are all played"
        )
    made = replace(spec, env=env_id, env_kwargs=EMPTY, wrapper=(), max_episode_steps=None)
    return replace(made, tasks=())


def make_report(
    spec: RunSpec,
    version: int,
    results: list[EpisodeResult],
    settings: PlaySettings,
    trained_in: str = "",
) -> dict[str, Any]:
    """The figures of an evaluation, as `--json` prints them.

    They say in which environment the weights were trained where it is given and another one.
    """
    another = trained_in and trained_in != travelling(spec.env)
    return {
        "env": travelling(spec.env),
        "run": spec.run,
        "weights_version": version,
        "episodes": len(results),
        "greedy": settings.greedy,
        "seed": settings.seed,
        **figures_of(results),
    } | ({"trained_in": trained_in} if another else {})


def in_words(report: dict[str, Any]) -> str:
    """The report as lines that are harmless to a terminal."""
    return saying.printable_lines(report_in_words(report))


def report_in_words(report: dict[str, Any]) -> str:
    """The report as it is printed without `--json`."""
    if "tasks" in report:
        return playing_tasks.report_in_words(report)
    how = "greedy" if report["greedy"] else "sampled"
    mean, std, least, greatest = (
        shown_return(report[f"{name}_return"]) for name in ("mean", "std", "min", "max")
    )
    cut = f", {report['cut']} cut at the step limit" if report["cut"] else ""
    trained_in = f" of {report['trained_in']}" if "trained_in" in report else ""
    return (
        f"{report['env']}, {report['episodes']} episodes, {how}, seed {report['seed']}, "
        f"weights version {report['weights_version']}{trained_in}{cut}\n"
        f"return: mean {mean}, std {std}, from {least} to {greatest}; "
        f"mean length {report['mean_length']:.1f}"
    ) + "".join(f"\nvideo: {path}" for path in report.get("videos", ()))


if __name__ == "__main__":
    main()
