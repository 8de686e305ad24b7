"""Arguments of an environment that only a run has given: they choose no file, and no import."""

import json
from dataclasses import replace
from typing import Any

import pytest

from impala_redis.common.envs.trust import check_environment
from impala_redis.common.errors import ConfigError
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec


def spec_of(env_id: str, kwargs: dict[str, Any]) -> RunSpec:
    """A run as it may stand in Redis."""
    spec = make_spec("r", Config(), ObservationSpec((4,), "float32"), discrete(2))
    return replace(spec, env=env_id, env_kwargs=json.dumps(kwargs))


@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [
        ("CartPole-v1", {"sutton_barto_reward": True}),
        ("FrozenLake-v1", {"map_name": "4x4"}),
        ("HalfCheetah-v5", {"forward_reward_weight": 2.0}),
        ("ALE/Pong-v5", {"frameskip": 2}),
        ("MiniGrid-Empty-8x8-v0", {"agent_start_dir": 1}),
        ("somewhere:Maze-v0", {"map_file": "/tmp/map"}),  # of a module that the user trusts
    ],
)
def test_values_of_what_is_known_or_trusted_are_taken(env_id: str, kwargs: dict[str, Any]) -> None:
    check_environment(spec_of(env_id, kwargs), ["somewhere"])


@pytest.mark.parametrize(
    ("env_id", "kwargs", "option"),
    [
        ("HalfCheetah-v5", {"xml_file": "/tmp/x.xml"}, "--env-module HalfCheetah-v5"),
        ("CartPole-v1", {"asset_path": "/tmp/x"}, "--env-module CartPole-v1"),
        ("CartPole-v1", {"log_dir": "/tmp/x"}, "--env-module CartPole-v1"),
        ("CartPole-v1", {"env_id": "evil:X"}, "--env-module CartPole-v1"),
        ("Plugin/Any-v0", {"size": 1}, "--env-module Plugin/Any-v0"),
        ("GymV21Environment-v0", {"env_id": "evil:X"}, "--env-module GymV21Environment-v0"),
        ("somewhere:GymV26Environment-v0", {"env_id": "evil:X"}, "--env-module GymV26Environment"),
        ("somewhere:HalfCheetah-v5", {"xml_file": "/tmp/x.xml"}, "--env-module HalfCheetah-v5"),
    ],
)
def test_what_may_choose_a_file_or_an_import_is_refused_unless_it_is_named(
    env_id: str, kwargs: dict[str, Any], option: str
) -> None:
    spec = spec_of(env_id, kwargs)
    with pytest.raises(ConfigError, match=f"the argument '{next(iter(kwargs))}'.*add {option}"):
        check_environment(spec, ["somewhere"])
    check_environment(spec, ["somewhere", env_id.rpartition(":")[2]])
    check_environment(replace(spec, env_kwargs="{}"), ["somewhere"])


def test_each_of_several_wrappers_must_be_of_a_trusted_module() -> None:
    # given
    spec = replace(spec_of("CartPole-v1", {}), wrapper=("one:Wraps", "other:Wraps"))

    # then
    check_environment(spec, ["one", "other"])
    for trusted, left_out in (("one", "other"), ("other", "one")):
        with pytest.raises(ConfigError, match=f"{left_out}:Wraps .*add --env-module {left_out}$"):
            check_environment(spec, [trusted])
