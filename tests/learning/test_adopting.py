"""A learner goes on with the state of another one, and with settings that have changed."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from updates import figures_after, make_config, make_data, spec_of

from impala_redis.common.errors import CheckpointError
from impala_redis.common.learning.engine import Engine
from impala_redis.common.learning.engines import make_engine
from impala_redis.common.learning.gpu_engine import GpuEngine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.records.checkpoint import Checkpoint, Tensors
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.settings.evolving import Copied

THEIRS = {"learning_rate": 0.02, "entropy_cost": 0.03, "rmsprop_epsilon": 0.04}
COPIED = Copied(THEIRS, 3, "other", 1e9)
RULE = {"learning_rate_schedule": "constant", "max_policy_lag": 7}


def engine_of(kind: str, spec: RunSpec, config: Config) -> Engine:
    if kind == "gpu":
        return GpuEngine(spec, config, torch.device("cpu"))
    return make_engine(kind, "cpu", 1, spec, config)


def learner_of(kind: str, seed: int, updates: int, **changes: object) -> Learner:
    """A learner that has made some updates."""
    config = make_config(seed=seed, **RULE | changes)
    learner = Learner(config, engine_of(kind, spec_of(config), config))
    for number in range(updates):
        figures_after(learner, make_data(learner.engine.spec, 10 * seed + number))
    return learner


def state_of(learner: Learner) -> Checkpoint:
    return Checkpoint(*learner.state(), Path("the other's state"))


@pytest.mark.parametrize("kind", ["numpy", "torch", "gpu"])
def test_it_goes_on_as_the_other_would_with_these_settings(kind: str) -> None:
    # given two learners that are apart, and a third that was begun with the other's settings
    mine, other = learner_of(kind, 1, 4), learner_of(kind, 2, 3)
    third = learner_of(kind, 2, 3)
    config = make_config(seed=2, **RULE, **THEIRS)
    changed = Learner(config, engine_of(kind, third.engine.spec, config))
    changed.restore(state_of(third))

    # when it adopts the other's state, and both make an update of the same batch
    mine.adopt(state_of(other), COPIED)
    batch = make_data(mine.engine.spec, 99)
    figures = figures_after(mine, batch), figures_after(changed, batch)

    # then they have the same network, and it has kept its own counters
    np.testing.assert_array_equal(mine.engine.flat(), changed.engine.flat())
    np.testing.assert_array_equal(mine.engine.averaged(), changed.engine.averaged())
    assert figures[0]["learning_rate"] == figures[1]["learning_rate"] == 0.02
    assert (mine.updates, mine.engine.steps) == (4 + 1, 3 + 1)
    assert mine.frames > other.frames


def test_blocks_from_before_are_too_old_and_returns_from_before_do_not_count() -> None:
    # given
    learner = learner_of("numpy", 1, 4)
    version, episodes = learner.version, learner.window.episodes
    assert learner.window.mean_return is not None

    # when
    learner.adopt(state_of(learner_of("numpy", 2, 3)), COPIED)

    # then a block of the version before is more than the bound behind
    assert learner.version - version > 7
    assert learner.window.mean_return is None
    assert learner.window.episodes == episodes


def test_a_resumed_run_goes_on_with_the_changed_settings_but_for_what_is_typed_anew() -> None:
    # given a learner whose settings were changed
    learner = learner_of("torch", 1, 2)
    learner.adopt(state_of(learner_of("torch", 2, 3)), COPIED)
    saved = state_of(learner)

    # when it is resumed as it was, and with another learning rate
    as_it_was, typed = learner_of("torch", 1, 0), learner_of("torch", 1, 0, learning_rate=0.5)
    as_it_was.restore(saved)
    typed.restore(saved)

    # then
    assert as_it_was.evolving.last == COPIED
    assert as_it_was.evolving.now == THEIRS
    assert typed.evolving.now == {**THEIRS, "learning_rate": 0.5}
    assert as_it_was.version == learner.version


def _lacks(tensors: Tensors) -> None:
    del tensors["optimizer.square.policy.bias"]


def _is_cut(tensors: Tensors) -> None:
    tensors["model.policy.bias"] = tensors["model.policy.bias"][:1]


def _is_no_number(tensors: Tensors) -> None:
    tensors["averaged.policy.bias"] = tensors["averaged.policy.bias"] * np.float32(np.nan)


def _has_bad_moments(tensors: Tensors) -> None:
    tensors["moments.rewards.squares"] = -np.ones(1)


@pytest.mark.parametrize("poison", [_lacks, _is_cut, _is_no_number, _has_bad_moments])
def test_a_state_that_will_not_do_is_refused_and_changes_nothing(
    poison: Callable[[Tensors], None],
) -> None:
    # given
    learner = learner_of("torch", 1, 2, normalize_rewards=True)
    state = state_of(learner_of("torch", 2, 3, normalize_rewards=True))
    poison(state.tensors)
    before, version = learner.state()[0], learner.version

    # when
    with pytest.raises(CheckpointError, match="the other's state"):
        learner.adopt(state, COPIED)

    # then
    for name, tensor in learner.state()[0].items():
        np.testing.assert_array_equal(tensor, before[name], err_msg=name)
    assert learner.version == version
    assert learner.evolving.last is None


def test_values_that_would_not_be_finite_in_this_run_are_refused_and_change_nothing() -> None:
    # given a state whose values are of a size that this run's bounds do not allow
    rule = {"popart": True, "reward_clipping": "none"}
    learner, other = (learner_of("torch", seed, 2, **rule) for seed in (1, 2))
    state = state_of(other)
    state.tensors["popart.std"] = np.full(1, 1e300)
    before = learner.state()[0]

    # when
    with pytest.raises(CheckpointError, match="would not be finite"):
        learner.adopt(state, COPIED)

    # then
    for name, tensor in learner.state()[0].items():
        np.testing.assert_array_equal(tensor, before[name], err_msg=name)
    assert learner.evolving.last is None

    # and a whole one is taken over with its statistics
    learner.adopt(state_of(other), COPIED)
    for name, tensor in learner.engine.popart().items():
        np.testing.assert_array_equal(tensor, other.engine.popart()[name])


def test_settings_out_of_their_range_are_refused() -> None:
    learner, state = learner_of("torch", 1, 2), state_of(learner_of("torch", 2, 3))
    before = learner.engine.flat()
    for values in ({**THEIRS, "learning_rate": -1.0}, {"learning_rate": 0.1}):
        with pytest.raises(CheckpointError, match="values"):
            learner.adopt(state, COPIED._replace(values=values))
    np.testing.assert_array_equal(learner.engine.flat(), before)


@pytest.mark.parametrize(
    ("key", "value"),
    [("generation", -1), ("copied_from", "a\nb"), ("copied_unix_s", "x"), ("typed", {})],
)
def test_a_checkpoint_whose_changed_settings_are_none_is_refused(key: str, value: object) -> None:
    # given
    learner = learner_of("torch", 1, 2)
    learner.adopt(state_of(learner_of("torch", 2, 3)), COPIED)
    saved = state_of(learner)
    saved.facts["evolved"][key] = value

    # then
    with pytest.raises(CheckpointError, match="lacks or garbles"):
        learner_of("torch", 1, 0).restore(saved)
