"""The network, and that acting in numpy is the same policy as learning in torch."""

import dataclasses
import tracemalloc
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from impala_redis.common.acting.numpy_policy import MlpPolicy
from impala_redis.common.acting.policy import Policy
from impala_redis.common.networks.network import Network, make_network
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec
from small_networks import (
    ACTIONS,
    FLOATS,
    INDEX,
    PARTS,
    PIXELS,
    lively_network,
    make_spec,
    policy_of,
    seen_by,
    some_observations,
)


def acting(policy: Policy, observations: NDArray[np.generic]) -> NDArray[np.float32]:
    """The policy's outputs in the first row of episodes."""
    policy.begin(len(observations))
    outputs = policy.outputs(observations, np.ones(len(observations), np.bool_))
    return outputs.copy()  # the next call may overwrite them


def learning(
    network: Network, spec: RunSpec, observations: NDArray[np.generic]
) -> NDArray[np.float32]:
    """The network's outputs of one row of first observations."""
    is_first = np.ones((1, len(observations)), np.bool_)
    missing = np.zeros((spec.observation.history, *observations.shape), observations.dtype)
    rows = np.concatenate([missing, observations[None]])
    with torch.no_grad():
        return network(seen_by(spec, rows, is_first)).policy[0].numpy()


def drawn(policy: Policy, observations: NDArray[np.generic]) -> tuple[NDArray[Any], NDArray[Any]]:
    policy.begin(len(observations))
    return policy.sample(observations, np.ones(len(observations), np.bool_))


@pytest.mark.parametrize(
    ("kind", "frame_stack", "activation", "hidden_sizes"),
    [
        ("one choice", 1, "tanh", (16, 8, 8)),
        ("one choice", 3, "relu", (16,)),
        ("several choices", 1, "relu", ()),
        ("numbers", 1, "relu", (16, 8)),
        ("numbers", 3, "tanh", ()),
    ],
)
@pytest.mark.parametrize(
    "observation",
    [
        FLOATS,
        PIXELS,
        INDEX,
        PARTS,
        ObservationSpec((2, 3), "float64"),
        ObservationSpec((), "float32"),
        ObservationSpec((3,), "int16", scale=(7,)),
        ObservationSpec((2, 2), "int64", scale=(1, 3, 2**40, 10)),
        ObservationSpec((), "int64", 1),
    ],
)
def test_the_actors_policy_and_the_learners_network_give_the_same_outputs(
    observation: ObservationSpec,
    kind: str,
    frame_stack: int,
    activation: str,
    hidden_sizes: tuple[int, ...],
) -> None:
    # given
    spec = make_spec(
        dataclasses.replace(observation, frame_stack=frame_stack),
        action=ACTIONS[kind],
        activation=activation,
        hidden_sizes=hidden_sizes,
    )
    network = lively_network(spec)
    policy = policy_of(network, spec)
    observations = some_observations(observation, 32)

    # when
    learners, actors = learning(network, spec, observations), acting(policy, observations)

    # then
    assert isinstance(policy, MlpPolicy)  # which is written in numpy
    assert actors.dtype == np.float32
    assert actors.shape == (32, spec.action.num_outputs)
    np.testing.assert_allclose(actors, learners, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("observation", [FLOATS, PIXELS, INDEX])
def test_the_network_keeps_the_leading_dimensions(observation: ObservationSpec) -> None:
    # given
    spec = make_spec(observation)
    network = lively_network(spec)
    observations = some_observations(observation, 6, 3)

    # when
    with torch.no_grad():
        output = network(seen_by(spec, observations))
        row_by_row = [network(seen_by(spec, row[None])) for row in observations]

    # then
    assert output.policy.shape == (6, 3, 4)
    assert output.baseline.shape == (6, 3, 1)
    assert output.policy.dtype == output.baseline.dtype == torch.float32
    for t, row in enumerate(row_by_row):
        np.testing.assert_allclose(output.policy[t], row.policy[0], rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(output.baseline[t], row.baseline[0], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("scale", "expected"), [((255,), 1.2), ((), 306.0), ((51,), 6.0), ((1, 51), 256.0)]
)
def test_numbers_are_divided_by_their_scale(scale: tuple[int, ...], expected: float) -> None:
    # given: a network that adds up its inputs
    spec = make_spec(
        ObservationSpec((2,), "uint8", scale=scale), hidden_sizes=(), action=discrete(1)
    )
    network = make_network(spec, seed=0)
    network.policy.weight.data.fill_(1.0)

    # when
    logits = learning(network, spec, np.array([[255, 51]], np.uint8))

    # then
    assert logits.item() == pytest.approx(expected)


def test_an_index_selects_its_own_column_of_weights() -> None:
    # given
    spec = make_spec(INDEX, hidden_sizes=())
    network = lively_network(spec)

    # when
    logits = learning(network, spec, np.arange(7))

    # then
    weight, bias = network.policy.weight.detach(), network.policy.bias.detach()
    np.testing.assert_allclose(logits, weight.T + bias, rtol=1e-6)


@pytest.mark.parametrize("observation", [FLOATS, PIXELS, INDEX])
def test_log_probs_are_the_log_softmax_at_the_action_taken(observation: ObservationSpec) -> None:
    # given
    spec = make_spec(observation)
    network = lively_network(spec)
    policy = policy_of(network, spec)
    observations = some_observations(observation, 200)

    # when
    actions, log_probs = drawn(policy, observations)

    # then
    logits = torch.from_numpy(learning(network, spec, observations))
    log_policy = torch.log_softmax(logits, -1).numpy()
    assert actions.shape == log_probs.shape == (200,)
    assert log_probs.dtype == np.float32
    np.testing.assert_allclose(log_probs, log_policy[np.arange(200), actions], rtol=0, atol=1e-5)
    assert set(actions.tolist()) == set(range(4))


def test_actions_are_drawn_as_often_as_the_softmax_says() -> None:
    # given: one observation, many times
    draws = 20_000
    spec = make_spec()
    network = lively_network(spec)
    policy = policy_of(network, spec, seed=11)
    observation = some_observations(FLOATS, 1)
    logits = torch.from_numpy(learning(network, spec, observation))
    expected = torch.softmax(logits[0], -1).numpy()

    # when
    actions, _ = drawn(policy, np.repeat(observation, draws, axis=0))

    # then: a share's standard error is sqrt(p (1 - p) / draws); four of them, for four actions
    shares = np.bincount(actions, minlength=4) / draws
    errors = np.sqrt(expected * (1 - expected) / draws)
    assert expected.max() < 0.95
    assert (np.abs(shares - expected) <= 4 * errors).all()


def test_an_action_of_no_probability_is_never_drawn_and_its_log_prob_stays_finite() -> None:
    # given: a difference of 1000 in the logits
    spec = make_spec(hidden_sizes=(), action=discrete(3))
    network = make_network(spec, seed=0)
    network.policy.weight.data.zero_()
    network.policy.bias.data.copy_(torch.tensor([-1000.0, 0.0, -1000.0]))

    # when
    actions, log_probs = drawn(policy_of(network, spec), some_observations(FLOATS, 1000))

    # then
    assert (actions == 1).all()
    assert (log_probs == 0).all()


class Draws:
    """Stands in for the generator: every draw is the same number of [0, 1)."""

    def __init__(self, draw: float) -> None:
        self.draw = draw

    def random(self, size: int, dtype: type[np.float32]) -> NDArray[np.float32]:
        return np.full(size, self.draw, dtype)


@pytest.mark.parametrize(
    ("draw", "expected"),
    [(0.0, 1), (0.49, 1), (0.51, 2), (float(np.nextafter(np.float32(1), 0)), 2)],
)
def test_the_least_and_the_greatest_draw_take_an_action_that_the_policy_may_take(
    draw: float, expected: int
) -> None:
    # given: the first and the last action have no probability, the two between a half each
    spec = make_spec(hidden_sizes=(), action=discrete(4))
    network = make_network(spec, seed=0)
    network.policy.weight.data.zero_()
    network.policy.bias.data.copy_(torch.tensor([-1000.0, 0.0, 0.0, -1000.0]))
    policy = MlpPolicy(spec, Draws(draw))  # type: ignore[arg-type]
    policy.load(1, {name: p.detach().numpy() for name, p in network.named_parameters()})

    # when
    actions, log_probs = drawn(policy, some_observations(FLOATS, 3))

    # then
    assert actions.tolist() == [expected] * 3
    np.testing.assert_allclose(log_probs, np.log(0.5), rtol=1e-6)


def test_log_probs_are_never_above_zero() -> None:
    # given: near-certain policies, where rounding could go either way
    spec = make_spec(hidden_sizes=(), action=discrete(2))
    network = make_network(spec, seed=0)
    network.policy.weight.data.normal_(0.0, 4.0, generator=torch.Generator().manual_seed(0))

    # when
    _, log_probs = drawn(policy_of(network, spec), some_observations(FLOATS, 5000))

    # then
    assert (log_probs <= 0).all()
    assert np.isfinite(log_probs).all()


def test_the_same_seed_draws_the_same_actions() -> None:
    # given
    spec = make_spec()
    network = lively_network(spec)
    observations = some_observations(FLOATS, 100)

    # when
    first, again, other = (drawn(policy_of(network, spec, s), observations)[0] for s in (1, 1, 2))

    # then
    assert (first == again).all()
    assert (first != other).any()


@pytest.mark.parametrize("observation", [FLOATS, INDEX])
def test_greedy_takes_the_likeliest_action(observation: ObservationSpec) -> None:
    # given
    spec = make_spec(observation)
    network = lively_network(spec)
    observations = some_observations(observation, 50)

    # when
    policy = policy_of(network, spec)
    policy.begin(50)
    actions = policy.greedy(observations, np.ones(50, np.bool_))

    # then
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, learning(network, spec, observations).argmax(-1))


def test_new_weights_are_acted_with_from_the_next_call_on() -> None:
    # given
    spec = make_spec()
    old, new = make_network(spec, seed=0), lively_network(spec)
    policy = policy_of(old, spec)
    observations = some_observations(FLOATS, 8)
    before = acting(policy, observations)

    # when
    policy.load(9, {name: p.detach().numpy() for name, p in new.named_parameters()})

    # then
    assert policy.version == 9
    np.testing.assert_array_equal(
        acting(policy, observations), acting(policy_of(new, spec), observations)
    )
    assert np.abs(acting(policy, observations) - before).max() > 0.1


@pytest.mark.parametrize("hidden_sizes", [(16, 9), (8,)])
def test_an_infinite_number_is_acted_on_as_in_torch_and_in_its_row_alone(
    hidden_sizes: tuple[int, ...],
) -> None:
    # given
    spec = make_spec(FLOATS, hidden_sizes=hidden_sizes, action=ACTIONS["numbers"])
    network = lively_network(spec)
    observations = some_observations(FLOATS, 8)
    plain = learning(network, spec, observations)

    # when the third environment observes an infinite number
    observations = observations.copy()
    observations[2, 0] = np.inf
    acted = acting(policy_of(network, spec), observations)

    # then
    np.testing.assert_allclose(acted, learning(network, spec, observations), atol=1e-5)
    np.testing.assert_allclose(np.delete(acted, 2, 0), np.delete(plain, 2, 0), atol=1e-5)


def test_a_policy_acts_for_any_number_of_environments_in_turn() -> None:
    # given
    spec = make_spec(FLOATS)
    policy = policy_of(lively_network(spec), spec)
    observations = some_observations(FLOATS, 8)
    of_all = acting(policy, observations)

    # when fewer are acted for, and then all again
    np.testing.assert_allclose(acting(policy, observations[:3]), of_all[:3], atol=1e-6)
    np.testing.assert_array_equal(acting(policy, observations), of_all)


@pytest.mark.parametrize("observation", [FLOATS, PIXELS, INDEX])
def test_acting_changes_neither_the_observations_nor_the_weights(
    observation: ObservationSpec,
) -> None:
    # given
    spec = make_spec(observation)
    weights = {n: p.detach().numpy().copy() for n, p in lively_network(spec).named_parameters()}
    observations = some_observations(observation, 8)
    before = {name: array.copy() for name, array in weights.items()}
    seen = observations.copy()
    for array in (observations, *weights.values()):
        array.flags.writeable = False  # as views into a frame are
    policy = MlpPolicy(spec, np.random.default_rng(0))
    policy.load(1, weights)

    # when
    first = acting(policy, observations)
    drawn(policy, observations)
    policy.greedy(observations, np.ones(8, np.bool_))

    # then
    np.testing.assert_array_equal(acting(policy, observations), first)
    np.testing.assert_array_equal(observations, seen)
    assert all((weights[name] == before[name]).all() for name in weights)


def test_acting_on_an_index_takes_memory_by_its_width_and_not_by_its_square() -> None:
    # given: 4096 values; a square of them in float32 has 64 MiB
    spec = make_spec(ObservationSpec((), "int64", 4096), hidden_sizes=(4,))
    policy = policy_of(make_network(spec, seed=0), spec)
    observations = np.zeros(2, np.int64)

    # when
    tracemalloc.start()
    drawn(policy, observations)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    # then
    assert peak < 4_000_000


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    # when
    first, again, other = (make_network(make_spec(), seed) for seed in (3, 3, 4))

    # then
    for one, same in zip(first.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, same)
    assert not torch.equal(first.policy.weight, other.policy.weight)


def test_making_a_network_leaves_torchs_random_numbers_alone() -> None:
    # given
    before = torch.get_rng_state()

    # when
    make_network(make_spec(), seed=123)

    # then
    assert torch.equal(torch.get_rng_state(), before)


def test_a_fresh_policy_is_near_uniform() -> None:
    # given
    spec = make_spec()

    # when
    logits = acting(policy_of(make_network(spec, seed=0), spec), some_observations(FLOATS, 100))

    # then
    assert np.ptp(logits, axis=-1).max() < 0.1
