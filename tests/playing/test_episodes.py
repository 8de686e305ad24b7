"""The episodes of an evaluation are played in the run's own variant, with a video and without."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from own_modules import paying_run

from impala_redis.common.acting.policies import make_host_policy
from impala_redis.common.acting.policy import Policy
from impala_redis.common.run.spec import RunSpec
from impala_redis.workers.playing import EpisodeResult, PlaySettings, play_together, record

SETTINGS = PlaySettings(greedy=True, max_steps=9, seed=0)
# Four steps by the run's limit, each of which pays the size 3, and the wrapper twice as much.
EXPECTED = [EpisodeResult(episode_return=24.0, length=4, cut=False)] * 2


class NeverStopped:
    """Stands in for the flag that signals set."""

    def take_signals(self) -> None:
        pass

    def __call__(self) -> bool:
        return False


STOP: Any = NeverStopped()


def policy_of(spec: RunSpec) -> Policy:
    """A policy with weights of no matter."""
    policy = make_host_policy(spec, np.random.default_rng(0))
    policy.load(3, {k: np.zeros(shape, np.float32) for k, shape in spec.weight_shapes().items()})
    return policy


def test_episodes_that_are_played_together_are_of_the_runs_variant(own_folder: Path) -> None:
    spec = paying_run(own_folder)
    with ExitStack() as at_end:
        assert play_together(spec, policy_of(spec), 2, SETTINGS, STOP, at_end) == EXPECTED


def test_episodes_that_are_recorded_are_of_the_runs_variant(own_folder: Path) -> None:
    pytest.importorskip("moviepy")
    spec = paying_run(own_folder)
    results, videos = record(spec, policy_of(spec), 2, SETTINGS, own_folder, STOP)
    assert results == EXPECTED
    names = [f"paying_v3_seed{seed}_return24.mp4" for seed in range(2)]
    assert [video.name for video in videos] == names
    assert all((own_folder / name).exists() for name in names)
