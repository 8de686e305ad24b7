"""A policy on a device plays what those on the host play: held to them step by step."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from impala_redis.common.acting.device_policy import DevicePolicy
from impala_redis.common.acting.policies import make_policy
from impala_redis.common.acting.policy import Policy
from impala_redis.common.acting.unroll import Actor
from impala_redis.common.envs.vector import StepResult
from impala_redis.common.errors import DeviceFull
from impala_redis.common.networks.network import Network
from impala_redis.common.run.spaces import ObservationSpec
from impala_redis.common.run.spec import RunSpec
from small_networks import (
    ACTIONS,
    FLOATS,
    INDEX,
    PARTS,
    lively_network,
    make_spec,
    some_actions,
    some_observations,
)

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
T, N = 5, 6
GREY = ObservationSpec((24, 22), "uint8", scale=(255,), frame_stack=4)
COLOURS = ObservationSpec((20, 21, 3), "uint8", scale=(255,), frame_stack=2)
LAST = "last_action_reward"
KINDS: dict[str, dict[str, Any]] = {
    "hidden layers": {},
    "categories": {"observation": INDEX},
    "hidden layers, stacked": {"observation": ObservationSpec((3,), "float32", frame_stack=3)},
    "shallow, stacked": {"observation": GREY, "network": "shallow"},
    "shallow, stacked colours": {"observation": COLOURS, "network": "shallow"},
    "deep, stacked": {"observation": GREY, "network": "deep"},
    "an LSTM": {"lstm_size": 6},
    "an LSTM and extra inputs": {"lstm_size": 6, "extra_inputs": LAST},
    "deep, an LSTM and extra inputs": {
        "observation": GREY,
        "network": "deep",
        "lstm_size": 6,
        "extra_inputs": LAST,
    },
    "parts in bytes": {"observation": PARTS, "network": "deep"},
    "numbers": {"action": ACTIONS["numbers"]},
    "several choices, extra inputs": {"action": ACTIONS["several choices"], "extra_inputs": LAST},
    "bounded numbers, extra inputs": {"action": ACTIONS["bounded numbers"], "extra_inputs": LAST},
}

Make = Callable[[RunSpec, np.random.Generator], Policy]


class Scenes:
    """An environment of random observations, in which column i ends every i + 3 steps."""

    num_envs = N

    def __init__(self, spec: RunSpec) -> None:
        self.observation, self.action = spec.observation, spec.action
        self.steps = 0
        self.taken: list[Any] = []

    def set_progress(self, share: float) -> None:
        """Hears nothing."""

    def reset(self, seed: int) -> Any:
        return some_observations(self.observation, N, seed=0)

    def step(self, actions: Any) -> StepResult:
        self.steps += 1
        self.taken.append(np.array(actions))
        rng = np.random.default_rng(self.steps)
        over = self.steps % (np.arange(N) + 3) == 0
        return StepResult(
            some_observations(self.observation, N, seed=self.steps),
            rng.normal(0.0, 2.0, N).astype(np.float32),
            terminated=over & (np.arange(N) % 2 == 0),
            truncated=over & (np.arange(N) % 2 == 1),
            over=over,
        )

    def close(self) -> None:
        pass


def weights_of(network: Network) -> dict[str, Any]:
    return {name: p.detach().numpy() for name, p in network.named_parameters()}


def on(device: torch.device) -> Make:
    return lambda spec, rng: DevicePolicy(spec, rng, device)


def acting(spec: RunSpec, make: Make) -> Actor:
    environment: Any = Scenes(spec)
    actor = Actor(spec, environment, "a", 1, make_policy=make)
    actor.policy.load(1, weights_of(lively_network(spec)))
    return actor


def assert_the_same_games(spec: RunSpec, mine: Actor, theirs: Actor) -> None:
    for _ in range(4):
        found, expected = mine.unroll().trajectory, theirs.unroll().trajectory
        for name in ("observations", "is_first", "rewards", "discounts", "mask"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), name)
        if spec.action.kind == "continuous":  # drawn around means that differ by rounding
            drawn = found.actions.astype(float), expected.actions.astype(float)
            np.testing.assert_allclose(*drawn, rtol=0, atol=2e-5)
        else:
            np.testing.assert_array_equal(found.actions, expected.actions)
        for name in ("behaviour_log_probs", "memory"):
            pair = getattr(found, name), getattr(expected, name)
            np.testing.assert_allclose(*pair, rtol=0, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("kind", KINDS)
def test_an_actor_with_a_policy_on_a_device_plays_the_same_games(kind: str) -> None:
    # given
    spec = make_spec(**{"unroll_length": T, "envs_per_actor": N} | KINDS[kind])

    # when / then
    assert_the_same_games(spec, acting(spec, on(CPU)), acting(spec, make_policy))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_actor_on_a_gpu_plays_the_same_games(kind: str) -> None:
    # given
    spec = make_spec(**{"unroll_length": T, "envs_per_actor": N} | KINDS[kind])
    on_gpu = acting(spec, on(torch.device("cuda")))

    # when / then
    assert_the_same_games(spec, on_gpu, acting(spec, make_policy))


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_on_a_device_fetches_its_outputs_and_nothing_else(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given a device that computes shapes alone: what is fetched from it would raise an error
    spec = make_spec(**{"unroll_length": T, "envs_per_actor": N} | KINDS[kind])
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)  # it does not know this one
    fetched: list[tuple[int, ...]] = []

    def fetch(tensor: torch.Tensor) -> torch.Tensor:
        assert tensor.device == nowhere
        fetched.append(tuple(tensor.shape))
        return torch.zeros(tensor.shape)

    monkeypatch.setattr(torch.Tensor, "cpu", fetch)
    nowhere = torch.device("meta")
    policy = on(nowhere)(spec, np.random.default_rng(0))
    policy.load(1, weights_of(lively_network(spec)))
    policy.begin(N)

    # when
    for _ in range(3):
        outputs = policy.outputs(some_observations(spec.observation, N), np.ones(N, np.bool_))
        policy.remember(some_actions(spec.action, N), np.zeros(N, np.float32))

    # then
    assert fetched == [outputs.shape] * 3
    assert policy.memory.shape == (N, spec.memory_size)
    assert policy.history.shape == (spec.observation.history, N, *spec.observation.shape)


def test_new_weights_act_from_the_next_step_on_and_the_memory_stays() -> None:
    # given policies that have acted, and other weights for them
    spec = make_spec(observation=GREY, network="shallow", lstm_size=4, envs_per_actor=N)
    policies = [
        on(CPU)(spec, np.random.default_rng(0)),
        make_policy(spec, np.random.default_rng(0)),
    ]
    first = weights_of(lively_network(spec))
    others = {name: -0.5 * array for name, array in first.items()}
    none_first, found = np.zeros(N, np.bool_), []

    # when
    for policy in policies:
        policy.begin(N)
        policy.load(1, first)
        before = policy.outputs(some_observations(GREY, N), none_first).copy()
        policy.load(2, others)
        after = policy.outputs(some_observations(GREY, N), none_first).copy()
        found.append((before, after, policy.memory))
        assert policy.version == 2

    # then
    for mine, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-5)
    assert not np.allclose(found[0][0], found[0][1])


def test_a_memory_that_is_not_finite_begins_again_and_others_go_on() -> None:
    # given a policy with a memory and extra inputs, of which one column was shown a NaN
    spec = make_spec(lstm_size=4, extra_inputs=LAST)
    policy = on(CPU)(spec, np.random.default_rng(0))
    policy.load(1, weights_of(lively_network(spec)))
    policy.begin(2)
    seen = some_observations(FLOATS, 2)
    seen[0] = np.nan

    # when
    outputs = policy.outputs(seen, np.ones(2, np.bool_))
    policy.remember(some_actions(spec.action, 2), np.array([np.nan, -7.0], np.float32))

    # then
    assert np.isnan(outputs[0]).all()
    assert np.isfinite(outputs[1]).all()
    memory = policy.memory
    assert (memory[0, : spec.core_memory_size] == 0).all()
    assert (memory[1, : spec.core_memory_size] != 0).any()
    assert memory[:, -1].tolist() == [0.0, -1.0]


def test_a_policy_begins_anew_for_another_number_of_environments() -> None:
    # given a policy that has acted for two environments
    spec = make_spec(observation=GREY, network="shallow", lstm_size=4)
    policy = on(CPU)(spec, np.random.default_rng(0))
    policy.load(1, weights_of(lively_network(spec)))
    policy.begin(2)
    policy.outputs(some_observations(GREY, 2), np.ones(2, np.bool_))
    assert policy.history.any()
    assert policy.memory.any()

    # when
    policy.begin(3)

    # then
    assert policy.memory.shape == (3, spec.memory_size)
    assert policy.history.shape == (GREY.history, 3, *GREY.shape)
    assert not policy.history.any()
    assert not policy.memory.any()


def test_a_device_without_memory_is_told_with_what_an_actor_can_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given a device that has none left
    policy = on(CPU)(make_spec(), np.random.default_rng(0))

    def fails(*_: Any) -> Any:
        raise torch.OutOfMemoryError(
            "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ..."
        )

    monkeypatch.setattr(Network, "forward", fails)
    policy.begin(2)

    # when / then
    with pytest.raises(
        DeviceFull, match=r"Tried to allocate 2\.00 GiB\); .* or --envs of an actor"
    ):
        policy.outputs(some_observations(FLOATS, 2), np.ones(2, np.bool_))
