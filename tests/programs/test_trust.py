"""What the commands that a run prints add, so that other programs take its environments."""

import pytest

from impala_redis.common.run.config import Config
from impala_redis.workers.trust import trust_options

TASKS = [
    {"env": "far:Far-v0"},
    {"env": "CartPole-v1", "env_kwargs": {"sutton_barto_reward": True}},
    {"env": "CartPole-v0"},
]


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"env": "envpool:CartPole-v1"}, ""),
        ({"env": "envpool:CartPole-v1", "wrapper": ["near:One"]}, " --env-module near"),
        ({"env": "no id"}, ""),
        ({"tasks": TASKS}, " --env-module far --env-module CartPole-v1"),
        ({"tasks": TASKS[2:], "env_kwargs": "a=1"}, " --env-module CartPole-v0"),
    ],
    ids=[
        "of EnvPool",
        "with a wrapper",
        "refused later",
        "a task's arguments",
        "the run's arguments",
    ],
)
def test_options_name_what_a_run_alone_may_not_choose(
    settings: dict[str, object], options: str
) -> None:
    assert trust_options(Config().replace(settings)) == options
