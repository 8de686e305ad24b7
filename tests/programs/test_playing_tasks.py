"""impala-eval of a run with several tasks: each is played, or those that are named, and scored."""

import contextlib
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
from saved_runs import save_run

from impala_redis.common.envs import video
from impala_redis.common.errors import ConfigError
from impala_redis.common.playing.saved import from_checkpoint
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import make_spec
from impala_redis.workers.evaluator import in_words, play_all, to_be_played
from impala_redis.workers.playing import EpisodeResult, PlaySettings
from impala_redis.workers.playing_tasks import make_report, one_by_one
from impala_redis.workers.stopping import StopFlag
from support import Programs

# The second one pays nothing but -1 at an episode's end.
TASKS = [
    {"name": "upright", "env": "CartPole-v1", "random": 0.0, "reference": 500.0},
    {
        "name": "fall",
        "env": "CartPole-v1",
        "random": -2.0,
        "reference": 0.0,
        "env_kwargs": {"sutton_barto_reward": True},
    },
]
SPEC = make_spec(
    "two", Config().replace({"tasks": TASKS}), ObservationSpec((), "float32"), discrete(2)
)
SETTINGS = PlaySettings(greedy=True, max_steps=1000, seed=0)


@pytest.mark.processes
def test_each_task_is_played_with_its_own_arguments(programs: Programs) -> None:
    # given a checkpoint of a run of two tasks
    save_run(programs.folder / "run", "CartPole-v1", 3, tasks=TASKS)
    evaluate = ("impala-eval", "--checkpoint", "run", "--env-module", "CartPole-v1")

    # when both are played
    code, output = programs.run(*evaluate, "--episodes", "4", "--json")
    assert code == 0, output
    report = json.loads(output)

    # then
    upright, fall = report["tasks"]
    assert (upright["name"], fall["name"], report["episodes"]) == ("upright", "fall", 8)
    assert upright["mean_return"] == upright["mean_length"] > 1
    assert fall["returns"] == [-1.0] * 4 and fall["score"] == 0.5
    assert report["score"] == pytest.approx((upright["mean_return"] / 500 + 0.5) / 2)

    # and one alone goes as it does beside the other
    code, output = programs.run(*evaluate, "--episodes", "4", "--task", "fall", "--json")
    assert code == 0, output
    assert json.loads(output)["tasks"] == [fall]


class NoPictures:
    """A recording that keeps nothing but the names of its files."""

    def wrap(self, environment: gym.Env[Any, Any]) -> gym.Env[Any, Any]:
        return environment

    def keep(self, name: str) -> Path:
        return Path(f"{name}.mp4")


def test_the_videos_of_each_task_have_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a run of two tasks, and no packages that make videos
    save_run(tmp_path / "run", "CartPole-v1", 3, tasks=TASKS)
    monkeypatch.setattr(video, "recording", lambda _: contextlib.nullcontext(NoPictures()))

    # when
    spec, weights = from_checkpoint(tmp_path / "run")
    settings = PlaySettings(greedy=True, max_steps=2, seed=7)
    with contextlib.ExitStack() as at_end:
        results, videos = play_all(spec, weights, 2, settings, Path("v"), StopFlag(), at_end)

    # then
    assert [len(of_task) for of_task in results] == [2, 2]
    assert [path.name for path in videos] == [
        *(f"run_0-upright_v3_seed{seed}_return2.mp4" for seed in (7, 8)),
        *(f"run_1-fall_v3_seed{seed}_return0.mp4" for seed in (7, 8)),
    ]


def test_the_table_has_a_row_for_each_task_and_their_mean() -> None:
    # given
    results = [
        [EpisodeResult(episode_return, 9, False) for episode_return in (100.0, 300.0)],
        [EpisodeResult(-1.0, 9, True)] * 2,
    ]

    # when
    report = make_report(SPEC, 7, results, SETTINGS)

    # then
    assert in_words(report).splitlines() == [
        "2 tasks, 4 episodes, greedy, seed 0, weights version 7, 2 cut at the step limit",
        "task     episodes   mean    std  score",
        "upright         2  200.0  100.0  0.400",
        "fall            2  -1.00   0.00  0.500",
        "mean            4   99.5         0.450",
    ]


def test_some_tasks_or_another_environment_may_be_named() -> None:
    trusted = ("CartPole-v1",)
    (fall,) = one_by_one(to_be_played(SPEC, None, trusted, (), ("fall",)))
    assert (fall.env, fall.num_tasks) == ("CartPole-v1", 2)
    assert fall.variant.env_kwargs == '{"sutton_barto_reward": true}'
    (other,) = one_by_one(to_be_played(SPEC, "CartPole-v0", (), ()))
    assert (other.env, other.variant.env_kwargs, other.num_tasks) == ("CartPole-v0", "{}", 2)
    with pytest.raises(ConfigError, match="no task 'fly'; there are: upright, fall"):
        to_be_played(SPEC, None, trusted, (), ("fly",))
    with pytest.raises(ConfigError, match="--env and --task both say what is played"):
        to_be_played(SPEC, "CartPole-v0", (), (), ("fall",))
    with pytest.raises(ConfigError, match="names A-v0,B-v0, and takes one environment here"):
        to_be_played(SPEC, "A-v0,B-v0", (), ())
