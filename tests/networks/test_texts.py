"""Texts in a network: their words one-hot, as embeddings added up, or read in order by an LSTM."""

import dataclasses
import re
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray

from impala_redis.common.acting.unroll import Actor
from impala_redis.common.encoding.observations import Encoder, encoded_text, observation_spec
from impala_redis.common.envs.vector import VectorEnvironment
from impala_redis.common.errors import ConfigError, SpecMismatch
from impala_redis.common.learning.engine import Rates
from impala_redis.common.learning.engines import check_engine, make_engine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.networks.network import NetworkInput, make_network
from impala_redis.common.networks.texts import TextLstm, TextSum
from impala_redis.common.run.config import Config
from impala_redis.common.run.kinds import TEXTS
from impala_redis.common.run.own_network import OwnNetwork
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.run.spec import make_spec as make_run_spec
from small_networks import FLOATS, lively_network, make_spec, policy_of, seen_by

pytestmark = pytest.mark.usefixtures("one_thread")

MISSION = spaces.Text(100, min_length=0)
SPACES: dict[str, spaces.Space[Any]] = {
    "a text alone": MISSION,
    "a text and numbers": spaces.Dict(mission=MISSION, speed=spaces.Box(-1, 1, (3,))),
    "two texts in a Tuple": spaces.Tuple([MISSION, spaces.Discrete(3), MISSION]),
    "a text and a picture": spaces.Dict(
        {"1": MISSION, "2": spaces.Box(0, 255, (20, 20, 3), np.uint8)}
    ),
}
TEXTS_OF_A_ROW = ["go to the red ball", "", "the ball", "put a red key next to the red door now"]


def observations_of(name: str, rows: int, seed: int = 1) -> NDArray[np.generic]:
    """Observations [rows, 4, bytes] whose texts go round."""
    space = SPACES[name]
    space.seed(seed)
    encoder = Encoder(space, observation_spec("Env-v0", space), 1)

    def told(inside: Any, number: int) -> Any:
        if isinstance(inside, spaces.Dict):
            return {key: told(one, number) for key, one in inside.spaces.items()}
        if isinstance(inside, spaces.Tuple):
            return tuple(told(one, number + i) for i, one in enumerate(inside.spaces))
        if isinstance(inside, spaces.Text):
            return (TEXTS_OF_A_ROW[number % 4],)
        return np.asarray(inside.sample())[None]

    found = [
        encoder.encode(told(space, row + column)) for row in range(rows) for column in range(4)
    ]
    return np.stack(found).reshape(rows, 4, -1)


def words(*texts: str) -> torch.Tensor:
    return torch.from_numpy(np.stack([encoded_text(text) for text in texts]))


def test_a_sum_of_words_knows_which_they_are_and_an_lstm_their_order_too() -> None:
    # given
    texts = words("red after blue", "blue after red", "red after green")
    torch.manual_seed(0)

    # when
    with torch.no_grad():
        in_a_sum, in_order = TextSum(TEXTS["bag"])(texts), TextLstm(TEXTS["lstm"])(texts)

    # then
    torch.testing.assert_close(in_a_sum[0], in_a_sum[1])
    for made, one, other in ((in_a_sum, 0, 2), (in_order, 0, 1), (in_order, 0, 2)):
        assert (made[one] - made[other]).norm() > 0.01


@pytest.mark.parametrize("made", [TextSum(TEXTS["bag"]), TextLstm(TEXTS["lstm"])])
def test_where_there_is_no_word_there_is_neither_a_feature_nor_a_gradient(made: Any) -> None:
    # when
    features = made(words("", "red ball"))
    features.sum().backward()

    # then
    assert (features[0] == 0).all()
    assert (features[1] != 0).any()
    moved = made.embedding.grad.abs().sum(1).nonzero()[:, 0] + 1
    assert moved.tolist() == sorted(encoded_text("red ball")[:2].tolist())


def test_an_lstm_ends_with_the_last_word_as_torchs_does() -> None:
    # given the same weights in torch's own LSTM, which is given no place without a word
    made = TextLstm(TEXTS["lstm"])
    reference = torch.nn.LSTM(20, 64)
    inner = made.lstm
    inner.bias.data.normal_()
    own = {"weight_ih_l0": inner.weight_ih.data, "weight_hh_l0": inner.weight_hh.data}
    biases = {"bias_ih_l0": inner.bias.data, "bias_hh_l0": torch.zeros(256)}
    reference.load_state_dict(own | biases)
    texts = [*TEXTS_OF_A_ROW, TEXTS_OF_A_ROW[0], " ".join("abcdefghijklmnop")]

    # when
    with torch.no_grad():
        states = made(words(*texts))
        at_once = made._read(words(*texts).long())

    # then each is what the words alone make, also where a GPU reads all places of all texts
    for text, state in zip(texts, states, strict=True):
        buckets = encoded_text(text)
        found = made.embedding.data[buckets[buckets > 0].astype(np.int64) - 1]
        expected = reference(found)[0][-1] if len(found) else torch.zeros(64)
        torch.testing.assert_close(state, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(states, at_once, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", ["bag", "lstm"])
@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("a text alone", {}),
        ("a text alone", {"frame_stack": 3, "lstm_size": 6}),
        ("a text and numbers", {"normalize_observations": True, "frame_stack": 2}),
        ("two texts in a Tuple", {"extra_inputs": "last_action_reward"}),
        ("a text and a picture", {"network": "shallow"}),
    ],
)
def test_actor_and_learner_see_the_same_text_wherever_it_stands(
    name: str, changes: dict[str, Any], text: str
) -> None:
    # given
    stack = changes.pop("frame_stack", 1)
    observation = observation_spec("Env-v0", SPACES[name], stack)
    spec = make_spec(observation, text=text, **changes)
    network = lively_network(spec)
    rows = observations_of(name, stack)
    names = [(name, tuple(p.shape)) for name, p in network.named_parameters()]

    # when
    with torch.no_grad():
        policy = network(seen_by(spec, rows)).policy[0]
    actor = policy_of(network, spec)
    actor.begin(4)
    stacks = np.moveaxis(rows, 0, 1) if stack > 1 else rows[0]
    found = actor._outputs(stacks, np.zeros(4, np.bool_))  # type: ignore[attr-defined]

    # then its parameters are the spec's, its outputs the network's, and a text makes a difference
    assert names == list(spec.parameter_shapes().items())
    np.testing.assert_allclose(found, policy, rtol=1e-4, atol=1e-5)
    assert len(np.unique(np.round(found, 4), axis=0)) == 4


@pytest.mark.parametrize("text", ["bag", "lstm"])
def test_nothing_that_is_seen_is_looked_at_on_a_device(text: str) -> None:
    # given a device that computes shapes alone, and has no number to look at
    nowhere = torch.device("meta")
    observation = observation_spec("Env-v0", SPACES["two texts in a Tuple"])
    spec = make_spec(observation, text=text, activation="relu")
    seen = seen_by(spec, observations_of("two texts in a Tuple", 3))

    # when
    network = make_network(spec, seed=0).to(nowhere)
    output = network(NetworkInput(*(part.to(nowhere) for part in seen)))
    output.policy.sum().backward()

    # then
    assert output.policy.shape == (3, 4, 4)
    assert all(p.grad is not None for name, p in network.named_parameters() if "texts" in name)


@pytest.mark.parametrize("text", ["bag", "lstm"])
def test_under_autocast_a_text_is_nearly_what_it_was(text: str) -> None:
    observation = observation_spec("Env-v0", SPACES["a text and numbers"])
    spec = make_spec(observation, text=text)
    network, seen = lively_network(spec), seen_by(spec, observations_of("a text and numbers", 2))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rounded = network(seen).policy
    torch.testing.assert_close(rounded, network(seen).policy.detach(), rtol=0.1, atol=0.1)


class Order(gymnasium.Env[Any, Any]):
    """One step: which of two words comes first is which action pays."""

    observation_space = MISSION
    action_space = spaces.Discrete(2)

    def reset(self, **given: Any) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=given.get("seed"))
        self._first = int(self.np_random.integers(2))
        return ("left then right", "right then left")[self._first], {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return "", float(action == self._first), True, False, {}


gymnasium.register("WordOrder-v0", entry_point=Order)


@pytest.mark.parametrize(("text", "most", "least"), [("bag", 0.75, 0.0), ("lstm", 1.0, 0.95)])
def test_what_can_be_learned_is_what_the_words_are_seen_as(
    text: str, most: float, least: float
) -> None:
    # given a task in which the order of words is all
    config = Config().replace({"text": text, "optimizer": "adam", "envs_per_actor": 16})
    environment = VectorEnvironment("WordOrder-v0", 16)
    made = make_run_spec("words", config, environment.observation, environment.action)
    spec = RunSpec.from_json(made.to_json())
    engine = make_engine("auto", "cpu", 1, spec, config)
    learner = Learner(config, engine)
    actor = Actor(spec, environment, "host-1", 1)

    # when
    rewards = []
    for version in range(1, 16):
        actor.policy.load(version, learner.weights())
        trajectory = actor.unroll().trajectory
        rewards.append(trajectory.rewards.sum() / trajectory.frames)
        engine.step(trajectory, Rates(1e-2, 0.0, 1.0))
    actor.close()

    # then
    assert least <= rewards[-1] <= most, rewards


def test_a_text_that_is_not_there_is_refused_in_one_sentence() -> None:
    # given
    spec = make_spec(FLOATS, text="bag")
    message = (
        "--text bag is for the words of a text (a Text space), and the observation has none; "
        "give --text onehot"
    )

    # when / then: as a setting, and as what came from Redis
    with pytest.raises(ConfigError, match=re.escape(message)):
        spec.parameter_shapes()
    with pytest.raises(SpecMismatch, match="will not do: --text bag"):
        RunSpec.from_json(spec.to_json())
    with pytest.raises(SpecMismatch, match="has text 'gru', not onehot, bag, lstm"):
        RunSpec.from_json(dataclasses.replace(spec, text="gru").to_json())


def test_networks_and_engines_that_take_words_one_hot_say_so() -> None:
    # given
    observation = observation_spec("Env-v0", MISSION)
    spec = make_spec(observation, text="bag")
    own = dataclasses.replace(spec, network="mine:Net", own=OwnNetwork(features_dim=8))

    # when / then
    with pytest.raises(ConfigError, match="mine:Net is handed the words of a text one-hot; leave"):
        own.parameter_shapes()
    with pytest.raises(ConfigError, match="takes words one-hot, and --text asks for bag; use --e"):
        check_engine("numpy", "cpu", spec, Config())
