"""Plays episodes with a policy: all at once, or one by one and recorded."""

import re
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from impala_redis.common.acting.policy import Policy
from impala_redis.common.envs import video
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings.env_id import travelling
from impala_redis.workers import stopping


@dataclass(frozen=True)
class EpisodeResult:
    """How one episode went."""

    episode_return: float
    length: int  # steps
    cut: bool  # whether the step limit stopped it


@dataclass(frozen=True)
class PlaySettings:
    """How episodes are played."""

    greedy: bool  # the likeliest action, instead of one drawn from the policy
    max_steps: int  # of an episode
    seed: int


def play_together(
    spec: RunSpec,
    policy: Policy,
    episodes: int,
    settings: PlaySettings,
    stop: stopping.StopFlag,
    at_end: ExitStack,
) -> list[EpisodeResult]:
    """All episodes at once, each in an environment of its own; they are closed at the end."""
    environment = VectorEnvironment(
        spec.env,
        episodes,
        frame_stack=spec.observation.frame_stack,
        variant=spec.variant,
        num_processes=spec.env_processes,
    )
    at_end.callback(environment.close)
    require_fit(spec, environment)
    return play(policy, environment, settings, stop)


def require_fit(spec: RunSpec, environment: VectorEnvironment) -> None:
    """Raises UnsupportedEnvironment: the weights were trained for other spaces."""
    if difference := spec.other_spaces(environment.observation, environment.action):
        raise UnsupportedEnvironment(
            f"{travelling(spec.env)} does not fit the run's weights: {difference}, in the run; "
            "play them in an environment with the spaces that they were trained for"
        )


def play(
    policy: Policy, environment: VectorEnvironment, settings: PlaySettings, stop: stopping.StopFlag
) -> list[EpisodeResult]:
    """The first episode of each environment; the environments are stepped together."""
    observations = environment.reset(settings.seed)
    num_envs = environment.num_envs
    policy.begin(num_envs)
    returns, lengths = np.zeros(num_envs), np.zeros(num_envs, np.int64)
    playing = np.ones(num_envs, np.bool_)
    is_first, ended = np.ones(num_envs, np.bool_), np.zeros(num_envs, np.bool_)
    for _ in range(settings.max_steps):
        stop.take_signals()
        if not playing.any() or stop():
            break
        if settings.greedy:
            actions = policy.greedy(observations, is_first)
        else:
            actions, _ = policy.sample(observations, is_first)
        step = environment.step(actions)
        policy.remember(actions, step.rewards)
        returns += np.where(playing, step.rewards, 0.0)
        lengths += playing & ~ended  # the row after a life's end is no step
        playing &= ~step.over
        observations, is_first, ended = step.observations, ended, step.terminated | step.truncated
    return [
        EpisodeResult(float(r), int(n), bool(cut))
        for r, n, cut in zip(returns, lengths, playing, strict=True)
    ]


def record(
    spec: RunSpec,
    policy: Policy,
    episodes: int,
    settings: PlaySettings,
    directory: Path,
    stop: stopping.StopFlag,
    task: str = "",
) -> tuple[list[EpisodeResult], list[Path]]:
    """Episodes and their videos, one after another: the pictures of all would fill the memory.

    Each episode has a seed of its own, so they differ from those that are played together. The
    files have the run's name, and that of the `task` if there is one.
    Raises UnsupportedEnvironment: it draws no pictures. Raises ConfigError: a file cannot be
    written.
    """
    results: list[EpisodeResult] = []
    videos: list[Path] = []
    run = "_".join(re.sub(r"[^A-Za-z0-9._-]", "-", name)[:64] for name in (spec.run, task) if name)
    folder = directory.absolute()  # an environment may change the working directory
    for seed in range(settings.seed, settings.seed + episodes):
        with video.recording(folder) as recording:
            environment = VectorEnvironment(
                spec.env, 1, recording.wrap, spec.observation.frame_stack, variant=spec.variant
            )
            require_fit(spec, environment)
            (result,) = play(policy, environment, replace(settings, seed=seed), stop)
            if not stop():
                name = f"{run}_v{policy.version}_seed{seed}_return{result.episode_return:g}"
                videos.append(directory / recording.keep(name).name)
                results.append(result)
            environment.close()
        if stop():
            break
    return results, videos
