"""impala-eval: plays episodes with a run's live weights or a checkpoint's, and reports the returns.

The same seed plays the same episodes, but not the same with --video as without. Nothing is written
to Redis.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
from click.core import ParameterSource

from impala_redis.common.acting.policies import make_policy
from impala_redis.common.envs import video
from impala_redis.common.envs.trust import check_environment
from impala_redis.common.errors import EXIT_INTERRUPTED, ConfigError
from impala_redis.common.playing.saved import from_checkpoint, from_live_run
from impala_redis.common.records.returns import shown_return
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings.env_id import travelling
from impala_redis.common.settings.json_object import EMPTY
from impala_redis.common.user_code.modules import check_network
from impala_redis.workers import process, saying, stopping
from impala_redis.workers.command import Program
from impala_redis.workers.options import CONTEXT, option, shared
from impala_redis.workers.plan import run_name
from impala_redis.workers.playing import EpisodeResult, PlaySettings, play_together, record


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
@option("episodes", type=click.IntRange(1, 100_000), default=20, help="Episodes to play.")
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
        spec = to_be_played(trained, env_id, env_module, network_module)
        policy = make_policy(spec, np.random.default_rng([seed, 1]))
        policy.load(weights.version, weights.weights)
        settings = PlaySettings(greedy, max_steps, seed)
        videos: list[Path] = []
        if video_directory is None:
            results = play_together(spec, policy, episodes, settings, stop, at_end)
        else:
            results, videos = record(spec, policy, episodes, settings, video_directory, stop)
        if stop():
            raise SystemExit(EXIT_INTERRUPTED)
        report = make_report(spec, weights.version, results, settings, trained.env)
        if video_directory is not None:
            report["videos"] = [str(path) for path in videos]
        write(saying.as_json(report) if as_json else in_words(report))


def to_be_played(
    spec: RunSpec,
    env_id: str | None,
    env_modules: tuple[str, ...],
    network_modules: tuple[str, ...],
) -> RunSpec:
    """The spec of what is played: of the run, or as if it was of another environment.

    That one is made as it is registered, also if it is the run's own id. Whoever has typed it
    trusts it. Raises ConfigError: nobody here has named a module that makes a part of the run.
    """
    check_network(spec.network, network_modules)
    if env_id is None:
        check_environment(spec, env_modules)
        return spec
    return replace(spec, env=env_id, env_kwargs=EMPTY, wrapper=(), max_episode_steps=None)


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
    returns = np.array([result.episode_return for result in results])
    another = trained_in and trained_in != travelling(spec.env)
    return {
        "env": travelling(spec.env),
        "run": spec.run,
        "weights_version": version,
        "episodes": len(results),
        "greedy": settings.greedy,
        "seed": settings.seed,
        "mean_return": float(returns.mean()),
        "std_return": float(returns.std()),
        "min_return": float(returns.min()),
        "max_return": float(returns.max()),
        "mean_length": float(np.mean([result.length for result in results])),
        "cut": sum(result.cut for result in results),
        "returns": returns.tolist(),
    } | ({"trained_in": trained_in} if another else {})


def in_words(report: dict[str, Any]) -> str:
    """The report as lines that are harmless to a terminal."""
    return saying.printable_lines(report_in_words(report))


def report_in_words(report: dict[str, Any]) -> str:
    """The report as it is printed without `--json`."""
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
