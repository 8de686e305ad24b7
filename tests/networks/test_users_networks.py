"""Networks of the user's own: what they are handed, what a run says of them, what is refused."""

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from own_modules import REMEMBERS
from torch import Tensor

from impala_redis.common.acting.device_policy import DevicePolicy
from impala_redis.common.acting.policies import make_policy
from impala_redis.common.encoding.handed import Handed, handed_over
from impala_redis.common.encoding.observations import Encoder, observation_spec
from impala_redis.common.encoding.space_text import text_of
from impala_redis.common.errors import ConfigError, SpecMismatch
from impala_redis.common.networks.network import NetworkInput, make_network
from impala_redis.common.networks.own_input import OwnInput
from impala_redis.common.networks.own_probe import find_out
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import discrete
from impala_redis.common.run.spec import RunSpec, make_spec

pytestmark = pytest.mark.usefixtures("one_thread")

# What stable-baselines3 has as the base of its features extractors, as users write their own on it.
EXTRACTORS = """
import torch
from torch import nn


class BaseFeaturesExtractor(nn.Module):
    def __init__(self, observation_space, features_dim=0):
        super().__init__()
        assert features_dim > 0
        self._observation_space = observation_space
        self._features_dim = features_dim

    @property
    def features_dim(self):
        return self._features_dim


class CustomCNN(BaseFeaturesExtractor):
    def __init__(self, observation_space, features_dim=12):
        super().__init__(observation_space, features_dim)
        channels = observation_space.shape[0]
        self.cnn = nn.Sequential(
            nn.Conv2d(channels, 4, kernel_size=8, stride=4), nn.ReLU(), nn.Flatten()
        )
        with torch.no_grad():
            sample = torch.as_tensor(observation_space.sample()[None]).float()
            n_flatten = self.cnn(sample).shape[1]
        self.linear = nn.Sequential(nn.Linear(n_flatten, features_dim), nn.ReLU())

    def forward(self, observations):
        return self.linear(self.cnn(observations))


class CustomCombinedExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=1)
        extractors, total = {}, 0
        for key, subspace in observation_space.spaces.items():
            if key == "image":
                extractors[key] = nn.Sequential(nn.MaxPool2d(4), nn.Flatten())
                total += subspace.shape[1] // 4 * (subspace.shape[2] // 4) * subspace.shape[0]
            elif key == "vector":
                extractors[key] = nn.Linear(subspace.shape[0], 16)
                total += 16
        self.extractors = nn.ModuleDict(extractors)
        self._features_dim = total

    def forward(self, observations):
        encoded = [extractor(observations[key]) for key, extractor in self.extractors.items()]
        return torch.cat(encoded, dim=1)


class Plain(nn.Module):
    def __init__(self, observation_space, width=6):
        super().__init__()
        self.features_dim = width
        self.layer = nn.Linear(observation_space.shape[0], width)
        self.norm = nn.BatchNorm1d(width)
        self.frozen = nn.Parameter(torch.ones(width), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))

    def forward(self, observations):
        return self.norm(self.layer(observations)).tanh() * self.frozen


class Echo(nn.Module):
    def __init__(self, observation_space):
        super().__init__()
        self.features_dim = observation_space.shape[-1]
        self.gain = nn.Parameter(torch.ones(1))

    def forward(self, observations):
        return observations.flatten(0, -2)[-len(observations):] * self.gain
"""
EXTRACTORS += REMEMBERS

NUMBERS = spaces.Box(-1.0, 1.0, (3,), np.float32)
PICTURE = spaces.Box(0, 255, (36, 40, 3), np.uint8)
GREY = spaces.Box(0, 255, (36, 40), np.uint8)
DICT = spaces.Dict({"image": spaces.Box(0, 255, (16, 20, 3), np.uint8), "vector": NUMBERS})


@pytest.fixture
def here(own_folder: Path) -> Path:
    """A working directory with the module `theirs`, which is forgotten."""
    (own_folder / "theirs.py").write_text(EXTRACTORS)
    return own_folder


def spec_for(
    space: spaces.Space[Any], network: str, frame_stack: int = 1, **changes: Any
) -> RunSpec:
    """The spec of a run with that network, tried, and read as an actor reads it."""
    config = Config().replace(
        {"network": network, "hidden_sizes": [8], "unroll_length": 4, **changes}
    )
    observation = observation_spec("Test-v0", space, frame_stack)
    text = text_of(space, spaces.Discrete(3))
    spec = make_spec("test", config, observation, discrete(3), text, find_out)
    return RunSpec.from_json(spec.to_json())


def sampled(space: spaces.Space[Any], spec: RunSpec, rows: int) -> Any:
    """Random observations of a space [rows, ...] as they travel."""
    space.seed(1)
    one = gymnasium.vector.utils.batch_space(space, rows).sample()
    return Encoder(space, spec.observation, rows).encode(one)


def handed(space: spaces.Space[Any], frame_stack: int = 1) -> tuple[RunSpec, Handed]:
    """What a network of the user's own is handed in a run whose network nobody knows yet."""
    spec = dataclasses.replace(spec_for(NUMBERS, "mlp"), spaces=text_of(space, spaces.Discrete(3)))
    observation = observation_spec("Test-v0", space, frame_stack)
    spec = dataclasses.replace(spec, observation=observation)
    return spec, handed_over(spec)


@pytest.mark.parametrize(
    ("space", "frame_stack", "made_from"),
    [
        (NUMBERS, 1, NUMBERS),
        (NUMBERS, 4, spaces.Box(-1.0, 1.0, (4, 3), np.float32)),
        (PICTURE, 1, spaces.Box(0, 255, (3, 36, 40), np.uint8)),
        (PICTURE, 2, spaces.Box(0, 255, (2, 3, 36, 40), np.uint8)),
        (GREY, 1, spaces.Box(0, 255, (1, 36, 40), np.uint8)),
        (GREY, 4, spaces.Box(0, 255, (4, 36, 40), np.uint8)),
        (spaces.Box(0, 9, (4, 5), np.uint8), 1, spaces.Box(0, 9, (4, 5), np.uint8)),
        (spaces.Discrete(5), 1, spaces.Discrete(5)),
        (spaces.Discrete(5), 2, spaces.Box(0.0, 1.0, (2, 5), np.float32)),
        (spaces.MultiDiscrete([2, 3]), 1, spaces.MultiDiscrete([2, 3])),
        (spaces.MultiBinary(4), 1, spaces.MultiBinary([4])),
        (
            spaces.Tuple([NUMBERS, spaces.Dict({"a": spaces.Discrete(2)})]),
            1,
            spaces.Dict({"0": NUMBERS, "1": spaces.Dict({"a": spaces.Discrete(2)})}),
        ),
    ],
    ids=str,
)
def test_a_network_is_made_from_the_space_of_what_it_is_handed(
    space: spaces.Space[Any], frame_stack: int, made_from: spaces.Space[Any]
) -> None:
    # when
    spec, found = handed(space, frame_stack)
    rows = np.stack([sampled(space, spec, 2)] * frame_stack, 1)
    rows = rows[:, 0] if frame_stack == 1 else rows
    tensors = OwnInput(found, bool(spec.observation.parts))(torch.from_numpy(rows))

    # then
    assert found.space == made_from

    def agree(tensor: Any, one: Any) -> None:
        if isinstance(one, spaces.Dict):
            assert tensor.keys() == one.spaces.keys()
            for key, inner in one.spaces.items():
                agree(tensor[key], inner)
            return
        width = gymnasium.spaces.utils.flatdim(one)
        shape = one.shape if isinstance(one, spaces.Box | spaces.MultiBinary) else (width,)
        assert tuple(tensor.shape) == (2, *shape)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()

    agree(tensors, found.space)


@pytest.mark.parametrize("inner", [NUMBERS, DICT, spaces.Tuple([NUMBERS, GREY])], ids=str)
def test_a_network_is_handed_the_same_with_masks_from_infos(inner: spaces.Space[Any]) -> None:
    # given the space with the mask as a part
    own = dict(inner.spaces) if isinstance(inner, spaces.Dict) else {"observation": inner}
    seen = spaces.Dict({**own, "action_mask": spaces.MultiBinary(3)})
    spec = dataclasses.replace(
        spec_for(NUMBERS, "mlp"),
        spaces=text_of(seen, spaces.Discrete(3)),
        mask_from="info",
        observation=observation_spec("Test-v0", seen, masked=discrete(3)),
    )

    # then
    assert handed_over(spec).space == handed(inner)[1].space


def test_pictures_are_between_0_and_1_and_all_other_numbers_as_they_are() -> None:
    # given
    space = spaces.Dict({"seen": PICTURE, "board": spaces.Box(0, 9, (4, 5), np.uint8)})
    spec, found = handed(space)
    seen = np.arange(36 * 40 * 3, dtype=np.uint64).astype(np.uint8).reshape(1, 36, 40, 3)
    board = np.full((1, 4, 5), 9, np.uint8)

    # when
    rows = Encoder(space, spec.observation, 1).encode({"seen": seen, "board": board})
    tensors = OwnInput(found, in_bytes=True)(torch.from_numpy(rows))

    # then
    np.testing.assert_allclose(
        tensors["seen"].numpy(), seen.transpose(0, 3, 1, 2) / np.float32(255)
    )
    np.testing.assert_array_equal(tensors["board"].numpy(), board)


@pytest.mark.parametrize(
    ("network", "space", "frame_stack"),
    [
        ("theirs:CustomCNN", PICTURE, 1),
        ("theirs:CustomCNN", GREY, 4),
        ("theirs:CustomCombinedExtractor", DICT, 1),
        ("theirs:Plain", NUMBERS, 1),
        ("theirs:Remembers", NUMBERS, 1),
    ],
)
@pytest.mark.parametrize("core", [{}, {"extra_inputs": "last_action_reward"}, {"lstm_size": 4}])
def test_an_actor_acts_with_the_learners_network(
    here: Path, network: str, space: spaces.Space[Any], frame_stack: int, core: dict[str, Any]
) -> None:
    if network == "theirs:Remembers" and "lstm_size" in core:
        pytest.skip("it has a memory of its own")
    # given a network whose statistics are no longer fresh ones
    spec = spec_for(space, network, frame_stack, **core)
    learned = make_network(spec, seed=3).eval()
    for name, tensor in learned.travelling().items():
        if name.startswith("extractor.norm.running"):
            tensor.fill_(0.25)
    weights = {name: np.array(t.numpy(), np.float32) for name, t in learned.travelling().items()}
    assert {name: a.shape for name, a in weights.items()} == spec.weight_shapes()

    # when it acts in torch on the host, and by the policy of a device
    policies = [make_policy(spec, np.random.default_rng(0))]
    policies.append(DevicePolicy(spec, np.random.default_rng(0), torch.device("cpu")))
    rows, flags = [sampled(space, spec, 2) for _ in range(3)], np.zeros((3, 2), np.bool_)
    flags[0], flags[2, 1] = True, True
    outputs = []
    for policy in policies:
        policy.load(1, weights)
        policy.begin(2)
        pairs = zip(rows, flags, strict=True)
        outputs.append([policy.outputs(row, first).copy() for row, first in pairs])

    # then both act as the network does in one pass over all rows
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-5)
    if frame_stack == 1 and not spec.num_extra_inputs:
        with torch.no_grad():
            whole = learned(
                NetworkInput(
                    torch.from_numpy(np.stack(rows)),
                    torch.from_numpy(flags),
                    torch.zeros(2, 2, dtype=torch.int64),
                    torch.zeros(2, 2),
                    torch.zeros(2, spec.memory_size),
                )
            )
        np.testing.assert_allclose(outputs[0], whole.policy.numpy(), atol=1e-5)


def test_what_a_run_says_of_it_is_checked_and_enters_the_fingerprint(here: Path) -> None:
    spec = spec_for(NUMBERS, "theirs:Plain")
    wider = spec_for(NUMBERS, "theirs:Plain", network_config={"width": 7})
    assert spec.own is not None
    assert ("norm.running_var", (6,)) in spec.own.buffers
    assert spec.statistic_shapes()["extractor.norm.num_batches_tracked"] == ()
    assert wider.fingerprint != spec.fingerprint
    assert "own is a network of 6 features, 44 parameters in 6 tensors" in spec.difference(wider)

    document = json.loads(spec.to_json())
    for change in (
        {"own": None},
        {"network": "mlp"},
        {"own": {}},
        {"own": document["own"] | {"features_dim": 0}},
        {"own": document["own"] | {"memory_size": True}},
        {"own": document["own"] | {"parameters": [["a", [2]], ["a", [2]]]}},
        {"own": document["own"] | {"parameters": [["a", [2**31] * 8]]}},
        {"own": document["own"] | {"buffers": [["a", "b"]]}},
        {"own": document["own"] | {"buffers": [["a", [-1]]]}},
        {"own": document["own"] | {"memory_size": 4}, "lstm_size": 4},
    ):
        with pytest.raises(SpecMismatch):
            RunSpec.from_json(json.dumps(document | change))


def test_a_network_of_more_tensors_than_a_spec_has_room_for_is_named(here: Path) -> None:
    (here / "many.py").write_text(
        "import torch\n"
        "class Many(torch.nn.Module):\n"
        "    features_dim = 3\n"
        "    def __init__(self, space):\n"
        "        super().__init__()\n"
        "        for i in range(3000):\n"
        "            self.register_buffer(f'a_buffer_with_a_long_name_{i}', torch.zeros(1))\n"
        "    def forward(self, observations):\n"
        "        return observations\n"
    )
    with pytest.raises(ConfigError, match=r"the network many:Many has 3,000 tensors.*of 65,536"):
        spec_for(NUMBERS, "many:Many")


def test_another_network_of_the_same_name_is_refused(here: Path) -> None:
    spec = spec_for(NUMBERS, "theirs:Plain")
    sys.modules.pop("theirs")
    # (of another length, so that no compiled form of the first one passes for it)
    (here / "theirs.py").write_text(EXTRACTORS.replace("torch.ones(2)", "torch.ones(2 + 1)"))
    with pytest.raises(SpecMismatch, match=r"is another one on this machine.*learner's version"):
        make_policy(spec, np.random.default_rng(0))


def test_the_same_seed_makes_the_same_network(here: Path) -> None:
    spec = spec_for(NUMBERS, "theirs:Plain")

    def first(seed: int) -> Tensor:
        return make_network(spec, seed).travelling()["extractor.layer.weight"]

    assert torch.equal(first(1), first(1))
    assert not torch.equal(first(1), first(2))


# Broken ones, each with the words for it.

BROKEN = {
    "raise RuntimeError('no luck')": r"failed in its constructor: RuntimeError: no luck \(broken",
    "self.features_dim = None": r"it has no features_dim; set self\.features_dim to a whole number",
    "self.features_dim = 4": r"its forward is float32\[6, 3\], and must be \[batch, features_dim\]",
    "self.layer.double()": r"the parameter layer\.weight is float64; make it torch\.float32",
    "self.layer = nn.LazyLinear(3)": r"layer\.weight has no shape yet; make it without Lazy",
    "self.register_buffer('mask', torch.tensor(-torch.inf))": r"the buffer mask holds a NaN or an",
    "self.register_buffer('big', torch.tensor(2**25))": r"holds whole numbers above 16,777,216",
    "self.register_buffer('z', torch.zeros(2, dtype=torch.complex64))": r"z is complex64, which",
    "self.read = lambda x: x / 0": r"holds a NaN or an infinity, for fresh weights already",
    "self.read = lambda x: x.numpy()": r"its forward is a ndarray, not a tensor \[batch, feat",
    "self.read = lambda x: x - x.mean(0)": r"rows one by one give another features than several",
    "self.read = lambda x: x + torch.rand(3)": r"without chance, in eval mode",
    "self.read = lambda x: x.detach()": r"its features have no gradient",
    "self.read = lambda x: in_place(x.exp())": r"failed in its backward pass: RuntimeError: one of",
    "self.huge = nn.Linear(20_000, 20_000)": r"400,\d+,\d+ parameters take .* make it smaller, or",
}


@pytest.mark.parametrize("line", BROKEN)
def test_a_network_that_cannot_be_trained_is_refused_in_words(here: Path, line: str) -> None:
    (here / "broken.py").write_text(
        "import torch\nfrom torch import nn\n\n"
        "def in_place(x):\n    y = x * x\n    x.add_(1)\n    return y\n\n"
        "class Broken(nn.Module):\n    def __init__(self, observation_space):\n"
        "        super().__init__()\n        self.layer = nn.Linear(3, 3)\n"
        f"        self.features_dim = 3\n        self.read = lambda x: x\n        {line}\n\n"
        "    def forward(self, observations):\n        return self.read(self.layer(observations))\n"
    )
    with pytest.raises(ConfigError, match=BROKEN[line]) as refused:
        spec_for(NUMBERS, "broken:Broken")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("memory.masked_fill(first[:, None], 0.0)", "memory", "must empty its memory itself"),
        ("first[:, None]", "first[:, None] & first.all()", "must empty its memory itself"),
        ("zip(observations, is_first)", "zip(observations.flip(0), is_first)", "in their order"),
        (".tanh(), memory", ".tanh(), (rows[-2:] or rows)[0]", "give another memory than several"),
        (".tanh(), memory", ".tanh()", "gives no pair of features and memory; return both"),
        (".tanh(), memory", ".tanh(), memory[:1]", r"\[1, 5\], and must be \[B, memory_size\]"),
    ],
)
def test_a_memory_that_is_not_kept_row_by_row_is_refused(
    here: Path, old: str, new: str, why: str
) -> None:
    (here / "broken.py").write_text(EXTRACTORS.replace(old, new))
    with pytest.raises(ConfigError, match=why):
        spec_for(NUMBERS, "broken:Remembers")


@pytest.mark.parametrize(
    ("space", "changes", "why"),
    [
        (NUMBERS, {"network": "theirs:Nope"}, "has no class or function 'Nope'; name the network"),
        (NUMBERS, {"network": "nowhere:X"}, "the network nowhere:X cannot be imported: Module"),
        (NUMBERS, {"network": "json:dumps"}, "dumps|failed in its constructor"),
        (NUMBERS, {"network": "deeep"}, "or module:Name of your own, .*did you mean deep"),
        (NUMBERS, {"network": "mlp", "network_config": "a=1"}, "mlp takes no arguments"),
        (NUMBERS, {"network": "theirs:Plain", "network_config": "a=1"}, "unexpected keyword"),
        (NUMBERS, {"network": "theirs:Remembers", "lstm_size": 4}, "has a memory of its own"),
        (
            spaces.Dict({"a": spaces.MultiDiscrete([3] * 4000), "b": spaces.Text(5, charset="x")}),
            {"network": "theirs:Plain"},
            "failed in its constructor",
        ),
    ],
)
def test_a_network_that_is_not_there_is_refused_in_words(
    here: Path, space: spaces.Space[Any], changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(ConfigError, match=why):
        spec_for(space, **changes)


def test_numbers_are_normalised_before_a_network_of_ones_own_sees_them(here: Path) -> None:
    # given whole numbers that the built-in networks would divide by their bound, and figures
    space = spaces.Box(-8, 8, (3,), np.int16)
    spec = spec_for(space, "theirs:Echo", normalize_observations=True)
    network = make_network(spec, 0)
    tensors = network.travelling()
    tensors["normalizer.mean"].copy_(torch.tensor([0.5, 0.0, -1.0]))
    tensors["normalizer.inverse_std"].copy_(torch.tensor([2.0, 1.0, 100.0]))

    # when
    seen = torch.tensor([[[8, 4, -8], [0, 0, 8]]], dtype=torch.int16)
    first, memory = torch.ones(1, 2, dtype=torch.bool), torch.zeros(2, 0)
    features, _ = network._seen_by(seen, first, memory)

    # then they are clipped as well
    assert features.tolist() == [[1.0, 0.5, 0.0], [-1.0, 0.0, 10.0]]
    assert list(spec.statistic_shapes()) == ["normalizer.mean", "normalizer.inverse_std"]


@pytest.mark.parametrize("name", ["leaving.Marks", "Marks", "Own"])
def test_what_is_no_network_of_a_trusted_module_is_never_called(here: Path, name: str) -> None:
    # given classes that leave a file when they are made, as any command could
    code = "class {}:\n    def __init__(self, space, path):\n        open(path, 'w').close()\n"
    (here / "leaving.py").write_text(code.format("Marks"))
    (here / "open_to_all.py").write_text(
        f"import leaving\nfrom leaving import Marks\n{code.format('Own')}"
    )

    # when
    with pytest.raises(ConfigError, match=r"by the module that defines it|is no torch.nn.Module"):
        spec_for(NUMBERS, f"open_to_all:{name}", network_config='{"path": "left"}')

    # then
    assert not (here / "left").exists()
