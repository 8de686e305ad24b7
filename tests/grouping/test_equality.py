"""Learners of a group that train on the parts of a batch learn what one learner does on it all."""

from typing import Any

import numpy as np
import pytest
from companions import Companions, cut, one_learner, some_batch
from updates import figures_after

from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec

pytestmark = pytest.mark.usefixtures("one_thread")

NUMBERS, TWO = ObservationSpec((4,), "float32"), discrete(2)


def run_of(
    observation: ObservationSpec = NUMBERS, action: ActionSpec = TWO, **changes: Any
) -> tuple[RunSpec, Config]:
    """A run with the network of the preset for CartPole."""
    fixed = {"hidden_sizes": [64, 64], "unroll_length": 5, "total_frames": 100_000}
    config = Config().replace(fixed | changes)
    return make_spec("test", config, observation, action), config


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_learners_are_one_with_the_whole_batch(reduction: str, optimizer: str) -> None:
    # given
    spec, config = run_of(reduction=reduction, optimizer=optimizer)
    one, group = one_learner(spec, config), Companions(spec, config)

    # when
    for seed in range(200):
        batch = some_batch(spec, seed, columns=6)
        group.update(cut(batch, 2))
        figures_after(one, batch)

    # then
    first, second = (learner.engine.flat() for learner in group.learners)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, one.engine.flat(), rtol=0, atol=1e-6)
