"""Normalised observations and rewards: one rule for all engines and policies, across a resume."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from updates import KINDS, figures_after, make_config, make_data, spec_of_kind

from impala_redis.common.acting.device_policy import DevicePolicy
from impala_redis.common.acting.torch_policy import NetworkPolicy
from impala_redis.common.blocks import wire
from impala_redis.common.blocks.features import features, normalizer_of
from impala_redis.common.errors import CheckpointError, ConfigError
from impala_redis.common.learning.engine import Engine
from impala_redis.common.learning.gpu_engine import GpuEngine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.numpy_engine import NumpyEngine
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.loss import impala
from impala_redis.common.mlp.initial_weights import initial_weights
from impala_redis.common.mlp.loss import shape_rewards
from impala_redis.common.networks.network import Network
from impala_redis.common.records import checkpoint
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ObservationSpec
from impala_redis.common.run.spec import RunSpec
from small_networks import (
    FLOATS,
    INDEX,
    PARTS,
    PIXELS,
    lively_network,
    make_spec,
    policy_of,
    some_observations,
    statistics_of,
)

CPU = torch.device("cpu")
KIND = KINDS["numbers that are normalised, as all else is"]

ENGINES: dict[str, Callable[[RunSpec, Config], Engine]] = {
    "numpy": lambda spec, config: NumpyEngine(spec, config, initial_weights(spec, 0), 1),
    "torch": TorchEngine,
    "gpu": lambda spec, config: GpuEngine(spec, config, CPU),
}


def learner_of(engine: str, **changes: Any) -> Learner:
    config = make_config(**KIND.changes, **changes)
    return Learner(config, ENGINES[engine](spec_of_kind(KIND, config), config))


def network_with_statistics(spec: RunSpec) -> Network:
    """A lively network whose statistics are those of some observations, and no two alike."""
    network = lively_network(spec)
    for index, tensor in enumerate(statistics_of(network).values()):
        tensor.copy_(torch.linspace(0.1, 1.5, len(tensor)) - index)
    return network


STACKED = {"frame_stack": 3}


@pytest.mark.parametrize("changes", [{}, STACKED], ids=["", "stacked"])
@pytest.mark.parametrize("observation", [FLOATS, PARTS], ids=["numbers", "parts"])
def test_numpy_and_torch_normalise_alike(
    observation: ObservationSpec, changes: dict[str, Any]
) -> None:
    # given numbers of which some are beyond the clip, and the largest that travel
    seen_as = dataclasses.replace(observation, **changes)
    spec = make_spec(seen_as, normalize_observations=True)
    network = network_with_statistics(spec)
    frames = (seen_as.frame_stack,) if changes else ()
    seen = some_observations(observation, 40, *frames)
    if seen.dtype == np.float32:
        seen[0], seen[1] = np.finfo(np.float32).max, np.finfo(np.float32).min

    # when
    arrays = {name: tensor.numpy() for name, tensor in statistics_of(network).items()}
    found = features(seen_as, seen, normalizer_of(spec, arrays))
    expected = network.convolutions(torch.from_numpy(seen)).numpy()

    # then
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
    plain = features(seen_as, seen)
    changed = (found != plain).any(axis=0)
    places = {leaf.name: leaf for leaf in seen_as.leaves}
    numbers = [leaf for leaf in places.values() if not (leaf.num_values or leaf.is_picture)]
    assert changed.sum() == seen_as.frame_stack * sum(leaf.num_features for leaf in numbers)
    assert np.abs(found[:, changed]).max() <= 10.0


@pytest.mark.parametrize("weights_dtype", ["float32", "bfloat16"])
def test_every_policy_acts_by_the_statistics_that_travel(weights_dtype: str) -> None:
    # given
    spec = make_spec(FLOATS, normalize_observations=True, weights_dtype=weights_dtype)
    network = network_with_statistics(spec)
    tensors = network.travelling()
    arrays = {name: tensor.detach().numpy() for name, tensor in tensors.items()}
    seen, first = some_observations(FLOATS, 8), np.ones(8, np.bool_)

    # when
    weights = wire.unpack_weights(wire.pack_weights(arrays, 1, spec), spec).weights
    rng = np.random.default_rng(0)
    policies = [
        policy_of(network, spec),
        NetworkPolicy(spec, rng),
        DevicePolicy(spec, rng, CPU),
    ]
    outputs = []
    for policy in policies:
        policy.begin(8)
        policy.load(1, weights)
        outputs.append(policy.outputs(seen, first).copy())

    # then
    for name in spec.statistic_shapes():
        np.testing.assert_array_equal(weights[name], arrays[name])
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(outputs[2], outputs[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("engine", "stack"), [*((name, 1) for name in ENGINES), ("torch", 3)])
def test_an_update_uses_and_publishes_the_figures_of_its_own_real_fresh_rows(
    engine: str, stack: int
) -> None:
    # given a batch whose first column was replayed, and others of which not all rows are real
    learner = learner_of(engine, frame_stack=stack)
    batch = make_data(learner.engine.spec, 1)
    rows = batch.rows
    assert not rows.mask[:, 1:].all()
    batch.replayed = 1
    batch.parts = [batch.parts[0]._replace(columns=slice(1, 3), environments=range(2))]

    # when
    figures = figures_after(learner, batch)
    published = learner.versioned_weights().weights

    # then
    real = rows.observations[stack - 1 : -1, 1:][rows.mask[:, 1:]].astype(np.float64)
    returns = learner.normalization.tensors()
    variance = returns["moments.rewards.squares"] / returns["moments.rewards.count"]
    assert figures["reward_std"] == pytest.approx(np.sqrt(variance).item())
    np.testing.assert_allclose(published["normalizer.mean"], real.mean(0), rtol=1e-5)
    np.testing.assert_allclose(published["normalizer.inverse_std"], 1 / real.std(0), rtol=1e-5)
    assert list(published) == list(learner.engine.spec.weight_shapes())


@pytest.mark.parametrize("other", ["torch", "gpu"])
def test_all_engines_learn_the_same(other: str) -> None:
    # given rewards of a thousand, which count as some units
    learners = [learner_of(engine, learning_rate=1e-3) for engine in ("numpy", other)]
    for seed in range(4):
        batch = make_data(learners[0].engine.spec, seed)
        batch.rows.rewards[:] *= 1000.0

        # when
        one, two = (figures_after(learner, batch) for learner in learners)

        # then
        for name in ("policy_loss", "baseline_loss", "grad_norm"):
            assert one[name] == pytest.approx(two[name], rel=1e-3, abs=1e-4), name
        assert one["baseline_loss"] < 1000.0


@pytest.mark.parametrize("engine", ENGINES)
def test_a_restored_learner_goes_on_with_the_same_figures(engine: str, tmp_path: Path) -> None:
    # given
    learner = learner_of(engine)
    for seed in range(3):
        figures_after(learner, make_data(learner.engine.spec, seed))
    checkpoint.save(tmp_path, 3, *learner.state(), keep=1)

    # when: a resumed run has other actors, whose episodes begin anew
    restored = learner_of(engine)
    restored.restore(checkpoint.load(tmp_path))
    batch = make_data(learner.engine.spec, 9)
    batch.parts = [batch.parts[0]._replace(actor=("b", 2))]
    for one in (learner, restored):
        figures_after(one, batch)

    # then
    (tensors, _), (others, _) = learner.state(), restored.state()
    assert tensors.keys() == others.keys()
    assert tensors["moments.rewards.count"].tolist() != [0]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(others[name], tensor, err_msg=name, strict=True)


@pytest.mark.parametrize("engine", ENGINES)
def test_another_runs_figures_are_taken_with_its_weights(engine: str, tmp_path: Path) -> None:
    # given
    other, learner = learner_of(engine), learner_of(engine)
    for seed in range(3):
        figures_after(other, make_data(other.engine.spec, seed))
    checkpoint.save(tmp_path, 3, *other.state(), keep=1)

    # when
    learner.begin_from(checkpoint.load(tmp_path))

    # then
    (tensors, facts), (others, _) = learner.state(), other.state()
    for name, tensor in others.items():
        if name.startswith(("moments.", "model.normalizer.")):
            np.testing.assert_array_equal(tensors[name], tensor, err_msg=name, strict=True)
    assert facts["frames"] == 0


@pytest.mark.parametrize(
    "name", ["model.normalizer.mean", "moments.observations.mean", "moments.rewards.count"]
)
def test_a_checkpoint_that_lacks_a_figure_is_refused_by_its_name(name: str, tmp_path: Path) -> None:
    # given
    learner = learner_of("numpy")
    tensors, facts = learner.state()
    del tensors[name]
    checkpoint.save(tmp_path, 1, tensors, facts, keep=1)

    # when / then
    with pytest.raises(CheckpointError, match=name):
        learner.restore(checkpoint.load(tmp_path))


@pytest.mark.parametrize("observation", [PIXELS, INDEX], ids=["a picture", "a category"])
def test_an_observation_without_numbers_is_not_normalised(observation: ObservationSpec) -> None:
    with pytest.raises(ConfigError, match="leave it out"):
        make_spec(observation, normalize_observations=True).weight_shapes()


def test_rewards_are_multiplied_and_clipped_alike_in_numpy_and_torch() -> None:
    # given
    rewards = np.array([[0.5, -300.0, 3e38, -3e38]], np.float32)
    changes = {"normalize_rewards": True, "reward_clipping": "none", "reward_scale": 0.5}
    settings = make_config(**changes).loss

    # when
    with np.errstate(over="ignore"):
        found = shape_rewards(rewards, settings, 1e2)
    expected = impala.shape_rewards(torch.from_numpy(rewards), settings, torch.tensor(1e2))

    # then
    assert found.tolist() == expected.tolist() == [[5.0, -5.0, 5.0, -5.0]]
