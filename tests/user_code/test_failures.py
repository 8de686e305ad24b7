"""What an environment lacks is said in words, with the way to install it."""

import re

import gymnasium
import pytest

from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.user_code.failures import refusals


@pytest.mark.parametrize(
    ("said", "way"),
    [
        ("Box2D is not installed", "Box2D: run pip install 'impala-redis[box2d]'"),
        ('MuJoCo is not installed, run `pip install "gymnasium[mujoco]"`', "setup.sh mujoco"),
        ("gymnasium lacks jax", "a package: gymnasium lacks jax"),
    ],
)
def test_a_missing_simulator_is_named_with_the_extra_that_brings_it(said: str, way: str) -> None:
    with pytest.raises(UnsupportedEnvironment, match=re.escape(way)), refusals("Ant-v5", "made"):
        raise gymnasium.error.DependencyNotInstalled(said)
