"""The networks with convolutions and a memory: sizes, and that acting and learning see the same."""

import dataclasses
import re
from math import prod
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from impala_redis.common.acting.torch_policy import NetworkPolicy
from impala_redis.common.errors import ConfigError
from impala_redis.common.learning.torch_inputs import stacked
from impala_redis.common.networks.network import Network, NetworkInput, NetworkOutput, make_network
from impala_redis.common.run.architecture import advice_on_pictures, convolved_parts
from impala_redis.common.run.spaces import ObservationPart, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec
from small_networks import (
    ACTIONS,
    FLOATS,
    INDEX,
    PARTS,
    lively_network,
    make_spec,
    policy_of,
    seen_by,
    some_actions,
    some_observations,
)

pytestmark = pytest.mark.usefixtures("one_thread")

RGB = ObservationSpec((72, 96, 3), "uint8", scale=(255,))
GREY = ObservationSpec((36, 37), "uint8", scale=(255,))
# The numbers that each of the pixels of 20 x 21 in three colours is divided by.
BOUNDS = tuple(1 + 7 * index % 250 for index in range(20 * 21 * 3))
# (observation, network): what each can see; nature needs 36x36, the pictures in PARTS are 20x36.
SIGHTS = {
    "numbers": (FLOATS, "mlp"),
    "an index": (INDEX, "mlp"),
    "parts, flat": (PARTS, "mlp"),
    "parts, shallow": (PARTS, "shallow"),
    "parts, deep": (PARTS, "deep"),
    "colours, shallow": (ObservationSpec((21, 24, 3), "uint8", scale=(10,)), "shallow"),
    "bounds of each pixel, shallow": (
        ObservationSpec((20, 21, 3), "uint8", scale=BOUNDS),
        "shallow",
    ),
    "floats up to 255, shallow": (ObservationSpec((3, 20, 21), "float32", scale=(255,)), "shallow"),
    "a depth, shallow": (ObservationSpec((20, 21), "float64"), "shallow"),
    "stacked colours, shallow": (
        ObservationSpec((2, 20, 21, 3), "uint8", scale=BOUNDS * 2),
        "shallow",
    ),
    "grey, nature": (GREY, "nature"),
    "colours first, nature": (ObservationSpec((3, 36, 40), "uint8", scale=(255,)), "nature"),
    "a small picture, deep": (ObservationSpec((7, 5, 3), "uint8", scale=(255,)), "deep"),
}
MEMORIES: dict[str, dict[str, Any]] = {
    "no memory": {},
    "an LSTM": {"lstm_size": 6},
    "the last step": {"extra_inputs": "last_action_reward"},
    "an LSTM and the last step": {"lstm_size": 6, "extra_inputs": "last_action_reward"},
}


def spec_of(sight: str, memory: str, kind: str = "one choice", frame_stack: int = 1) -> RunSpec:
    observation, network = SIGHTS[sight]
    return make_spec(
        dataclasses.replace(observation, frame_stack=frame_stack),
        network=network,
        action=ACTIONS[kind],
        **MEMORIES[memory],
    )


class Play(NamedTuple):
    """Some rows of acting: what happened, and what the policy gave and remembered."""

    histories: NDArray[np.generic]  # [R, H, N, ...] before each row
    observations: NDArray[np.generic]  # [R, N, ...]
    is_first: NDArray[np.bool_]  # [R, N]
    actions: NDArray[np.generic]  # [R, N, ...]
    rewards: NDArray[np.float32]  # [R, N]
    outputs: NDArray[np.float32]  # [R, N, P]
    memories: NDArray[np.float32]  # [R, N, M] before each row
    cores: NDArray[np.float32]  # [R, N, 2L] after each row


def play(network: Network, spec: RunSpec, is_first: NDArray[np.bool_]) -> Play:
    """Acts row by row, as an actor does, with an action and a reward that come from elsewhere."""
    rows, n = is_first.shape
    policy = policy_of(network, spec)
    policy.begin(n)
    observations = some_observations(spec.observation, rows, n)
    actions = some_actions(spec.action, rows, n)
    rewards = np.random.default_rng(6).normal(0, 2, (rows, n)).astype(np.float32)  # some above 1
    histories, outputs, memories, cores = [], [], [], []
    for t in range(rows):
        histories.append(policy.history.copy())
        memories.append(policy.memory.copy())
        outputs.append(policy.outputs(observations[t], is_first[t]).copy())
        cores.append(policy.memory[:, : spec.core_memory_size].copy())
        policy.remember(actions[t], rewards[t])
    made = map(np.stack, (outputs, memories, cores))
    return Play(np.stack(histories), observations, is_first, actions, rewards, *made)


def learn(network: Network, played: Play, start: int, end: int) -> NetworkOutput:
    """The learner's pass over rows `start` to `end`, both included, from the memory sent along."""
    flags = torch.from_numpy(played.is_first[start : end + 1])
    observations = np.concatenate([played.histories[start], played.observations[start : end + 1]])
    with torch.no_grad():
        output: NetworkOutput = network(
            NetworkInput(
                stacked(torch.from_numpy(observations), flags),
                flags,
                torch.from_numpy(played.actions[start:end]),
                torch.from_numpy(played.rewards[start:end]),
                torch.from_numpy(played.memories[start]),
            )
        )
    return output


def episodes(rows: int) -> NDArray[np.bool_]:
    """[R, 5]: an episode that goes on, one-row episodes, and borders at the unrolls' own borders.

    A fake row is the one before a first row: the network sees it as any other.
    """
    is_first = np.zeros((rows, 5), np.bool_)
    is_first[0] = True
    is_first[:, 1] = True
    is_first[rows // 2, 2] = True
    is_first[[rows // 2 - 1, rows - 1], 3] = True
    is_first[[2, 3, rows // 2 + 1], 4] = True
    return is_first


@pytest.mark.parametrize(
    ("sight", "frame_stack", "kind", "memory"),
    [
        ("an index", 1, "one choice", "no memory"),
        ("an index", 1, "several choices", "the last step"),
        ("parts, flat", 2, "numbers", "an LSTM"),
        ("numbers", 3, "numbers", "an LSTM and the last step"),
        ("parts, shallow", 2, "several choices", "an LSTM and the last step"),
        ("parts, deep", 1, "numbers", "an LSTM and the last step"),
        ("colours, shallow", 1, "one choice", "an LSTM and the last step"),
        ("grey, nature", 4, "one choice", "an LSTM and the last step"),
        ("a small picture, deep", 1, "one choice", "an LSTM and the last step"),
        ("grey, nature", 4, "one choice", "no memory"),
    ],
)
def test_a_pass_over_an_unroll_gives_what_acting_step_by_step_gave(
    sight: str, frame_stack: int, kind: str, memory: str
) -> None:
    # given two unrolls of T steps, played one after the other; row T is in both
    spec = spec_of(sight, memory, kind, frame_stack)
    network = lively_network(spec)
    t = spec.unroll_length
    played = play(network, spec, episodes(2 * t + 1))

    # when
    first, second = learn(network, played, 0, t), learn(network, played, t, 2 * t)

    # then
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(first.policy, played.outputs[: t + 1], **close)
    np.testing.assert_allclose(second.policy, played.outputs[t:], **close)
    np.testing.assert_allclose(first.memory, played.cores[t], **close)
    np.testing.assert_allclose(second.memory, played.cores[2 * t], **close)
    assert np.ptp(played.outputs, axis=0).max() > 0.01  # rows differ, so it says something


def test_what_the_second_unroll_gives_depends_on_the_memory_sent_with_it() -> None:
    # given
    spec = spec_of("numbers", "an LSTM and the last step")
    network = lively_network(spec)
    t = spec.unroll_length
    played = play(network, spec, episodes(2 * t + 1))
    forgetful = played._replace(memories=np.zeros_like(played.memories))

    # when
    right = learn(network, played, t, 2 * t).policy
    wrong = learn(network, forgetful, t, 2 * t).policy

    # then where an episode goes on it does, and nowhere else
    goes_on = ~played.is_first[t]
    differs = (right[0] - wrong[0]).abs().amax(-1).numpy()
    assert (differs[goes_on] > 1e-4).all()
    assert (differs[~goes_on] == 0).all()


@pytest.mark.parametrize("memory", ["an LSTM", "the last step", "an LSTM and the last step"])
def test_a_number_that_is_none_does_not_outlive_its_row(memory: str) -> None:
    # given two policies in the midst of episodes
    spec = spec_of("numbers", memory)
    network = lively_network(spec)
    policy, other = policy_of(network, spec), policy_of(network, spec)
    begins, goes_on = np.array([True, True]), np.array([False, False])
    for one in (policy, other):
        one.begin(2)
        one.outputs(np.ones((2, 3), np.float32), begins)
        one.remember(np.ones(2, np.int64), np.ones(2, np.float32))

    # when the first sees an observation and a reward that are none, in one of its environments
    observations = np.ones((2, 3), np.float32)
    other.outputs(observations.copy(), goes_on)
    other.remember(np.zeros(2, np.int64), np.zeros(2, np.float32))
    observations[0, 1] = np.nan
    policy.outputs(observations, goes_on)
    policy.remember(np.zeros(2, np.int64), np.array([np.nan, 0.0], np.float32))

    # then that environment's memory begins again, and the other's is what it was
    assert np.isfinite(policy.memory).all()
    assert (policy.memory[0, : spec.core_memory_size] == 0).all()
    np.testing.assert_array_equal(policy.memory[1], other.memory[1])
    # and it goes on within the episode
    assert np.isfinite(policy.outputs(np.ones((2, 3), np.float32), goes_on)).all()
    assert np.isfinite(policy.memory).all()


@pytest.mark.parametrize("memory", ["an LSTM", "an LSTM and the last step"])
def test_nothing_passes_an_episodes_border(memory: str) -> None:
    # given a border in the middle of each column, and the same rows with another past
    spec = spec_of("numbers", memory)
    network = lively_network(spec)
    is_first = np.zeros((6, 4), np.bool_)
    is_first[3] = True
    seen = seen_by(spec, some_observations(FLOATS, 6, 4), is_first)
    seen = seen._replace(memory=torch.randn(seen.memory.shape, generator=torch.manual_seed(1)))
    other = seen._replace(
        observations=seen.observations.clone(),
        actions=(seen.actions + (torch.arange(5) < 3)[:, None]) % 4,
        rewards=seen.rewards + (torch.arange(5) < 3)[:, None],
        memory=seen.memory + 1,
    )
    other.observations[:3] += 1.0

    # when
    inputs = [seen.observations.requires_grad_(), seen.memory.requires_grad_()]
    output, another = network(seen), network(other)
    of_observations, of_memory = torch.autograd.grad(
        output.policy[3:].square().sum() + output.baseline[3:].sum(), inputs
    )

    # then what is given after the border is bit for bit the same, and no gradient comes before it
    assert torch.equal(output.policy[3:], another.policy[3:])
    assert torch.equal(output.baseline[3:], another.baseline[3:])
    assert torch.equal(output.memory, another.memory)
    assert not torch.equal(output.policy[2], another.policy[2])
    assert (of_observations[:3] == 0).all()
    assert (of_memory == 0).all()
    assert (of_observations[3:] != 0).any(dim=-1).all()


def test_an_lstms_outputs_and_gradients_are_those_of_torch() -> None:
    # given the same weights in torch's own LSTM, and one episode that goes on
    spec = make_spec(FLOATS, hidden_sizes=(), lstm_size=6)
    core = lively_network(spec).core
    assert core is not None
    reference = torch.nn.LSTM(3, 6)
    state = {
        "weight_ih_l0": core.weight_ih.data,
        "weight_hh_l0": core.weight_hh.data,
        "bias_ih_l0": core.bias.data,
        "bias_hh_l0": torch.zeros(24),
    }
    reference.load_state_dict(state)
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(7, 4, 3, generator=generator)
    h, c = torch.randn(2, 4, 6, generator=generator)

    # when
    outputs, memory = core(x, torch.zeros(7, 4, dtype=torch.bool), h, c)
    expected, (last_h, last_c) = reference(x, (h[None], c[None]))
    (outputs.square().sum() + memory.sum()).backward()
    (expected.square().sum() + last_h.sum() + last_c.sum()).backward()

    # then
    close = {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(outputs, expected, **close)
    torch.testing.assert_close(memory, torch.cat([last_h[0], last_c[0]], -1), **close)
    torch.testing.assert_close(core.weight_ih.grad, reference.weight_ih_l0.grad, **close)
    torch.testing.assert_close(core.weight_hh.grad, reference.weight_hh_l0.grad, **close)
    torch.testing.assert_close(core.bias.grad, reference.bias_ih_l0.grad, **close)


@pytest.mark.parametrize(
    ("network", "parameters", "millions", "convolutions"),
    [("shallow", 1_123_130, 1.2, 2), ("deep", 1_520_714, 1.6, 15)],
)
def test_the_papers_networks_have_the_papers_number_of_parameters(
    network: str, parameters: int, millions: float, convolutions: int
) -> None:
    # given the paper's picture and memory; 9 actions as on DMLab
    spec = make_spec(
        RGB,
        network=network,
        action=discrete(9),
        hidden_sizes=(256,),
        activation="relu",
        lstm_size=256,
        extra_inputs="last_action_reward",
    )

    # when it is counted in the list, and in torch
    listed = sum(map(prod, spec.parameter_shapes().values()))
    module = make_network(spec, seed=0)

    # then it is within 0.1 million of the paper's figure, which has one decimal, and counts a
    # second LSTM for the words of a level's task, as --text lstm has it
    assert listed == spec.num_parameters == sum(p.numel() for p in module.parameters())
    assert listed == parameters == pytest.approx(millions * 1e6, abs=0.1e6)
    layers = [layer for layer in module.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert len(layers) == convolutions


@pytest.mark.parametrize("sight", SIGHTS)
@pytest.mark.parametrize(
    ("memory", "kind", "frame_stack"),
    [
        ("no memory", "numbers", 1),
        ("the last step", "numbers", 4),
        ("an LSTM", "one choice", 2),
        ("an LSTM and the last step", "several choices", 1),
    ],
)
def test_the_list_of_parameters_is_the_networks(
    sight: str, memory: str, kind: str, frame_stack: int
) -> None:
    # given
    spec = spec_of(sight, memory, kind, frame_stack)

    # when
    network = make_network(spec, seed=0)

    # then: names, shapes and order, in which they travel
    found = [(name, tuple(p.shape)) for name, p in network.named_parameters()]
    assert found == list(spec.parameter_shapes().items())
    assert all(parameter.dtype == torch.float32 for parameter in network.parameters())


def test_each_part_of_an_observation_reaches_the_outputs_where_the_rule_says() -> None:
    # given a network with convolutions of two pictures, and everything else beside them
    spec = spec_of("parts, shallow", "no memory")
    network = lively_network(spec)
    before = some_observations(PARTS, 1, 1, seed=1)
    expected = network(seen_by(spec, before)).policy

    for part in PARTS.parts:
        if part.num_values and max(part.num_values) == 1:
            continue
        # when one part alone is another
        other = before.copy()
        place = slice(part.start, part.start + part.num_bytes)
        for seed in range(2, 9):
            other[..., place] = some_observations(PARTS, 1, 1, seed=seed)[..., place]
            if (other != before).any():
                break

        # then
        assert not torch.equal(network(seen_by(spec, other)).policy, expected), part.name


def test_a_residual_block_that_adds_nothing_lets_its_input_through() -> None:
    # given a deep network in which only the sections' own convolutions do something
    spec = spec_of("a small picture, deep", "no memory")
    network = lively_network(spec)
    layers = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    for index, layer in enumerate(layers):
        if index % 5:
            layer.weight.data.zero_()
            layer.bias.data.zero_()  # type: ignore[union-attr]
    pictures = some_observations(spec.observation, 1, 3)

    # when
    with torch.no_grad():
        policy = network(seen_by(spec, pictures)).policy[0]
        x = torch.from_numpy(pictures[0]).movedim(-1, 1) / 255
        for layer in layers[::5]:
            x = torch.nn.functional.max_pool2d(layer(x), 3, stride=2, padding=1)
        x = x.relu().flatten(1)
        for hidden in network.torso:
            x = hidden(x).tanh()
        expected = network.policy(x)

    # then
    torch.testing.assert_close(policy, expected, rtol=1e-5, atol=1e-5)


def test_colours_first_and_colours_last_are_the_same_picture() -> None:
    # given
    scale = np.arange(1, 36 * 40 * 3 + 1).reshape(36, 40, 3)  # one for each number
    last = ObservationSpec((36, 40, 3), "uint8", frame_stack=2, scale=tuple(scale.ravel().tolist()))
    turned_scale = tuple(np.moveaxis(scale, -1, 0).ravel().tolist())
    first = ObservationSpec((3, 36, 40), "uint8", frame_stack=2, scale=turned_scale)
    network, other = (lively_network(make_spec(seen, network="nature")) for seen in (last, first))
    pictures = some_observations(last, 3, 2)  # a row of history, and two

    # when
    with torch.no_grad():
        output = network(seen_by(make_spec(last), pictures)).policy
        turned = other(seen_by(make_spec(first), np.moveaxis(pictures, -1, 2).copy())).policy

    # then
    torch.testing.assert_close(output, turned)


@pytest.mark.parametrize("colours", [(), (3,)])
def test_frames_that_the_environment_stacks_are_seen_as_those_that_we_stack(
    colours: tuple[int, ...],
) -> None:
    # given three pictures of one episode, stacked by the environment and by us
    ours = ObservationSpec((20, 22, *colours), "uint8", frame_stack=3, scale=(255,))
    given = ObservationSpec((3, 20, 22, *colours), "uint8", scale=(255,))
    one, other = (lively_network(make_spec(seen, network="shallow")) for seen in (ours, given))
    pictures = some_observations(ours, 3, 2)

    # when
    with torch.no_grad():
        output = one(seen_by(make_spec(ours), pictures)).policy
        stacks = np.moveaxis(pictures, 0, 1)[None].copy()
        stacked_before = other(seen_by(make_spec(given), stacks)).policy

    # then
    torch.testing.assert_close(output, stacked_before)


def test_pixels_are_the_same_picture_in_bytes_and_in_floats() -> None:
    # given
    specs = {
        "uint8": ObservationSpec((20, 22, 3), "uint8", scale=(255,)),
        "float32": ObservationSpec((20, 22, 3), "float32", scale=(255,)),
        "float64": ObservationSpec((20, 22, 3), "float64"),
        "int32": ObservationSpec((20, 22, 3), "int32", scale=(255,)),
    }
    pictures = some_observations(specs["uint8"], 2, 2)
    kept = {dtype: pictures.astype(dtype) for dtype in specs}
    kept["float64"] /= 255  # type: ignore[misc]
    before = {dtype: numbers.copy() for dtype, numbers in kept.items()}

    # when
    with torch.no_grad():
        outputs = {
            dtype: lively_network(make_spec(seen, network="shallow"))(
                seen_by(make_spec(seen), kept[dtype])
            ).policy
            for dtype, seen in specs.items()
        }

    # then, and what was observed is as it was
    for dtype, output in outputs.items():
        torch.testing.assert_close(output, outputs["uint8"])
        assert np.array_equal(kept[dtype], before[dtype])


def test_beside_a_picture_of_bytes_other_arrays_stay_flat() -> None:
    # given what release 0.1 took, and the same without the bytes
    depth = ObservationPart("depth", (20, 22), "float32", start=0)
    small = ObservationPart("pose", (4, 4), "float32", start=1760)
    screen = ObservationPart("screen", (20, 22, 3), "uint8", start=1824, scale=(255,))
    both = ObservationSpec((3144,), "uint8", parts=(depth, small, screen))
    without = ObservationSpec((1824,), "uint8", parts=(depth, small))

    # when / then
    for network in ("shallow", "deep"):
        assert convolved_parts(network, both) == (screen,)
        assert convolved_parts(network, without) == (depth,)
    assert convolved_parts("mlp", both) == ()


@pytest.mark.parametrize(
    ("observation", "network", "message"),
    [
        (
            ObservationSpec((19, 96, 3), "uint8"),
            "shallow",
            "--network shallow needs a picture of at least 20x20, the observation has 19x96; "
            "use --network mlp or deep",
        ),
        (
            ObservationSpec((64, 35), "uint8"),
            "nature",
            "--network nature needs a picture of at least 36x36, the observation has 64x35; "
            "use --network mlp or deep",
        ),
        (
            ObservationSpec((2, 12, 12), "float32"),
            "shallow",
            "--network shallow needs a picture of at least 20x20, the observation has 12x12; "
            "use --network mlp or deep",
        ),
        (
            ObservationSpec((4, 12, 12, 3), "uint8"),
            "nature",
            "needs a picture of at least 36x36, the observation has 12x12; use --network mlp",
        ),
        (FLOATS, "deep", "observation has none; use --network mlp"),
        (INDEX, "shallow", "observation has none; use --network mlp"),
    ],
)
def test_a_network_that_cannot_see_the_observation_is_refused_with_the_remedy(
    observation: ObservationSpec, network: str, message: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        make_spec(observation, network=network).parameter_shapes()


@pytest.mark.parametrize(
    ("observation", "advice"),
    [
        (
            ObservationSpec((96, 96, 3), "uint8"),
            "a perceptron on 27,648 numbers is used; for pictures give --network shallow or nature",
        ),
        (
            ObservationSpec((210, 160, 3), "uint8", frame_stack=2),
            "a perceptron on 201,600 numbers is used; for pictures give --network",
        ),
        (ObservationSpec((3, 20, 35), "float32"), "2,100 numbers is used; for pictures give"),
        (PARTS, "--network shallow (or --network mlp to keep it)"),
        (ObservationSpec((4, 40, 40), "uint8"), "--network shallow or nature (or --network mlp"),
        (ObservationSpec((19, 96, 3), "uint8"), ""),  # a board
        (FLOATS, ""),
        (INDEX, ""),
    ],
)
def test_a_picture_for_a_perceptron_that_nobody_chose_gets_advice(
    observation: ObservationSpec, advice: str
) -> None:
    found = advice_on_pictures(make_spec(observation))
    assert advice in found
    assert bool(found) == bool(advice)
    if advice:
        assert not advice_on_pictures(make_spec(observation, network="deep"))


@pytest.mark.parametrize(("network", "side"), [("shallow", 20), ("nature", 36), ("deep", 1)])
def test_the_smallest_picture_that_is_accepted_can_be_seen(network: str, side: int) -> None:
    # given
    spec = make_spec(ObservationSpec((side, side), "uint8"), network=network)

    # when
    output = make_network(spec, seed=0)(seen_by(spec, some_observations(spec.observation, 2, 3)))

    # then
    assert output.policy.shape == (2, 3, 4)


def test_an_actors_extra_inputs_are_the_last_choice_and_the_clipped_reward() -> None:
    # given
    spec = make_spec(action=ACTIONS["several choices"], extra_inputs="last_action_reward")
    policy = policy_of(make_network(spec, seed=0), spec)
    assert isinstance(policy, NetworkPolicy)
    policy.begin(2)
    policy.sample(some_observations(FLOATS, 2), np.ones(2, np.bool_))

    # when
    policy.remember(np.array([[2, 0], [0, 1]]), np.array([7.5, -0.25], np.float32))

    # then
    assert policy.memory.tolist() == [[0, 0, 1, 1, 0, 1.0], [1, 0, 0, 0, 1, -0.25]]


@pytest.mark.parametrize("sight", SIGHTS)
def test_a_network_moves_to_a_device_as_a_whole(sight: str) -> None:
    # given a device that computes shapes alone, and refuses to mix its tensors with others
    nowhere = torch.device("meta")
    spec = dataclasses.replace(spec_of(sight, "an LSTM and the last step"), activation="relu")
    seen = seen_by(spec, some_observations(spec.observation, 4, 3))

    # when
    network = make_network(spec, seed=0).to(nowhere)
    output = network(NetworkInput(*(part.to(nowhere) for part in seen)))

    # then
    assert {tensor.device for tensor in network.buffers()} <= {nowhere}
    assert output.policy.shape == (4, 3, 4)


def test_the_same_seed_gives_the_same_weights_in_every_layer() -> None:
    # given
    spec = spec_of("parts, deep", "an LSTM and the last step")

    # when
    first, again, other = (make_network(spec, seed).state_dict() for seed in (3, 3, 4))

    # then
    assert all(torch.equal(first[name], again[name]) for name in first)
    weights = [name for name in first if "weight" in name]
    assert not any(torch.equal(first[name], other[name]) for name in weights)


def test_under_autocast_a_policy_and_its_baseline_stay_float32() -> None:
    # given
    spec = spec_of("a small picture, deep", "an LSTM and the last step", "numbers")
    network = lively_network(spec)
    seen = seen_by(spec, some_observations(spec.observation, 4, 3))

    # when
    with torch.autocast("cpu", torch.bfloat16):
        output = network(seen)
    output.policy.sum().backward()
    exact = network(seen)

    # then
    assert {part.dtype for part in output} == {torch.float32}
    torch.testing.assert_close(output.policy, exact.policy, rtol=0.1, atol=0.1)
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
