"""Both engines of torch train a network of the user's own: buffers, frozen parameters, resume."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from own_modules import REMEMBERS
from recorded import recorded
from updates import T, figures_after, make_config, make_data

from impala_redis.common.acting.device_policy import DevicePolicy
from impala_redis.common.blocks import wire
from impala_redis.common.encoding.observations import observation_spec
from impala_redis.common.encoding.space_text import text_of
from impala_redis.common.errors import ConfigError
from impala_redis.common.learning.engine import Rates
from impala_redis.common.learning.gpu_engine import UPDATES_BEFORE_GRAPH, GpuEngine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.networks.own_probe import find_out
from impala_redis.common.records import checkpoint
from impala_redis.common.records.checkpoint import Checkpoint
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import discrete
from impala_redis.common.run.spec import RunSpec, make_spec

pytestmark = pytest.mark.usefixtures("one_thread")

MODULE = """
import torch
from torch import nn


class Counting(nn.Module):
    features_dim = 6

    def __init__(self, observation_space):
        super().__init__()
        self.layer = nn.Linear(2, 6)
        self.norm = nn.BatchNorm1d(6)
        self.frozen = nn.Parameter(torch.ones(6), requires_grad=False)
        self.unused = nn.Parameter(torch.ones(2))
        self.register_buffer("mean", torch.zeros(2))
        self.register_buffer("table", torch.ones(2), persistent=False)

    def forward(self, observations):
        if self.training:  # a new tensor takes the buffer's place
            self.mean = 0.9 * self.mean + 0.1 * observations.mean(0).detach()
        return self.norm(self.layer(observations - self.mean.clone())).tanh() * self.frozen


class InPlace(nn.Module):
    memory_size, features_dim = 2, 2

    def __init__(self, observation_space):
        super().__init__()
        self.pos = nn.Parameter(torch.ones(1, 2, 2, 2))  # of four dimensions, and viewed flat

    def forward(self, observations, memory, is_first):
        rows = []
        for seen, first in zip(observations.div_(10.0), is_first):
            memory.masked_fill_(first[:, None], 0.0).mul_(0.5).add_(seen)
            rows.append(memory.clone())
        return torch.stack(rows) * self.pos.view(1, 8)[:, :2], memory


class Moody(nn.Module):
    features_dim = 2

    def forward(self, observations):
        if len(observations) > 10:
            raise ValueError("too many")
        return observations

    def __init__(self, observation_space):
        super().__init__()
"""
CPU = torch.device("cpu")
ENGINES: dict[str, Any] = {
    "on a CPU": TorchEngine,
    "of a GPU": lambda spec, config: GpuEngine(spec, config, CPU),
    "of a GPU, recorded": lambda spec, config: GpuEngine(spec, config, CPU, recorded),
}


@pytest.fixture(autouse=True)
def _theirs(own_folder: Path) -> None:
    (own_folder / "theirs.py").write_text(MODULE + REMEMBERS)


def run_with(network: str, **changes: Any) -> tuple[RunSpec, Config]:
    config = make_config(network=f"theirs:{network}", optimizer="adam", **changes)
    space = spaces.Box(-1, 1, (2,), np.float32)
    text = text_of(space, spaces.Discrete(3))
    seen = observation_spec("Test-v0", space)
    return make_spec("test", config, seen, discrete(3), text, find_out), config


def updated(learner: Learner, seed: int, bad: bool = False) -> dict[str, float]:
    batch = make_data(learner.engine.spec, seed)
    if bad:
        batch.rows.rewards[:] = np.nan
    if isinstance(learner.engine, GpuEngine):
        rows = learner.engine.empty_rows(len(batch.versions))
        for mine, theirs in zip(rows, batch.rows, strict=True):
            mine[:] = theirs
        batch.rows = rows
        batch.staged = learner.engine.stage(rows)
    return figures_after(learner, batch)


@pytest.mark.parametrize("engine", ENGINES)
def test_its_buffers_follow_the_steps_that_are_taken_and_no_others(engine: str) -> None:
    # given
    spec, config = run_with("Counting")
    learner = Learner(config, ENGINES[engine](spec, config))
    other = Learner(config, TorchEngine(spec, config))
    before = learner.weights()

    # when: of seven updates the second last is not finite
    for seed in range(7):
        updated(learner, seed, bad=seed == 5)
        updated(other, seed, bad=seed == 5)
        if seed == 4:
            unmoved = learner.weights()
        if seed == 5:
            after_bad = learner.weights()

    # then
    weights = learner.weights()
    for name, array in unmoved.items():
        np.testing.assert_array_equal(after_bad[name], array, name)
    assert learner.skipped == 1
    assert weights["extractor.norm.num_batches_tracked"] == 6.0
    assert "extractor.table" not in weights
    assert not np.array_equal(weights["extractor.mean"], before["extractor.mean"])
    for name in ("extractor.frozen", "extractor.unused"):
        np.testing.assert_array_equal(weights[name], before[name])
    assert not np.array_equal(weights["extractor.layer.weight"], before["extractor.layer.weight"])
    for name, array in other.weights().items():
        np.testing.assert_allclose(weights[name], array, atol=2e-3, err_msg=name)


def test_a_search_for_blocks_that_are_unfit_leaves_the_buffers_alone() -> None:
    spec, config = run_with("Counting")
    engine = TorchEngine(spec, config)
    before = engine.begin_statistics()()
    assert engine.allows_step(make_data(spec, 0).rows, Rates(1e-3, 0.01))
    for name, array in engine.begin_statistics()().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("engine", ENGINES)
def test_buffers_are_published_as_they_were_when_that_was_begun(engine: str) -> None:
    # given
    spec, config = run_with("Counting")
    learner = Learner(config, ENGINES[engine](spec, config))
    updated(learner, 0)
    before = dict(learner.weights())

    # when an update is made before anybody looks
    begun = learner.versioned_weights()
    updated(learner, 1)

    # then
    assert begun.weights.keys() == before.keys()
    for name, array in begun.weights.items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert (learner.weights()["extractor.mean"] != before["extractor.mean"]).any()


@pytest.mark.parametrize("network", ["Counting", "Remembers"])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_goes_on_exactly_where_it_was(network: str, engine: str) -> None:
    # given a learner after three updates, and its checkpoint
    spec, config = run_with(network)
    learner = Learner(config, ENGINES[engine](spec, config))
    for seed in range(3):
        updated(learner, seed)
    tensors, facts = learner.state()
    saved = Checkpoint(tensors, facts, Path("saved"))

    # when another goes on from it
    resumed = Learner(config, ENGINES[engine](spec, config))
    resumed.restore(saved)

    # then it publishes the same, and its next update is the same
    assert wire.pack_weights(resumed.weights(), 3, spec, 0.0) == wire.pack_weights(
        learner.weights(), 3, spec, 0.0
    )
    figures, others = updated(learner, 9), updated(resumed, 9)
    assert figures["total_loss"] == others["total_loss"]


def test_weights_and_buffers_arrive_whatever_the_dtype_on_the_wire() -> None:
    spec, config = run_with("Counting", weights_dtype="bfloat16")
    learner = Learner(config, TorchEngine(spec, config))
    for seed in range(3):
        updated(learner, seed)
    sent = learner.weights()
    found = wire.unpack_weights(wire.pack_weights(sent, 3, spec, 0.5), spec).weights
    for name in spec.statistic_shapes():
        np.testing.assert_array_equal(found[name], sent[name])


def test_a_network_that_fails_in_training_is_named_with_its_line() -> None:
    spec, config = run_with("Moody")
    learner = Learner(config, TorchEngine(spec, config))
    with pytest.raises(ConfigError, match=r"theirs:Moody failed in forward: Val.*, line"):
        updated(learner, 0)


def test_an_engine_in_numpy_and_a_memory_behind_a_memory_are_refused() -> None:
    from impala_redis.common.learning.engines import check_engine

    spec, config = run_with("Remembers")
    assert spec.core_memory_size == 5
    assert spec.unroll_length == T
    with pytest.raises(ConfigError, match="--engine numpy cannot be used"):
        check_engine("numpy", "cpu", spec, config)
    with pytest.raises(ConfigError, match="leave one of them out"):
        dataclasses.replace(spec, lstm_size=4).parameter_shapes()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_module_that_computes_in_place_leaves_the_batch_as_it_was(engine: str) -> None:
    # given
    spec, config = run_with("InPlace")
    learner = Learner(config, ENGINES[engine](spec, config))
    batch = make_data(spec, 1)
    before = [array.copy() for array in batch.rows]

    # when
    assert learner.engine.step(batch.rows, Rates(0.0, 0.0)).taken

    # then
    for array, old in zip(batch.rows, before, strict=True):
        np.testing.assert_array_equal(array, old)


def test_a_module_with_convolutions_over_frames_acts_on_a_device(tmp_path: Path) -> None:
    # given one whose weights have five dimensions
    (tmp_path / "theirs.py").write_text(
        "from torch import nn\n"
        "class Frames(nn.Module):\n"
        "    features_dim = 4\n"
        "    def __init__(self, observation_space):\n"
        "        super().__init__()\n"
        "        self.layer = nn.Conv3d(1, 4, (2, 5, 5))\n"
        "    def forward(self, observations):\n"
        "        return self.layer(observations[:, None]).mean((2, 3, 4))\n"
    )
    space = spaces.Box(0, 255, (8, 8), np.uint8)
    config = make_config(network="theirs:Frames", frame_stack=2)
    seen = observation_spec("Test-v0", space, 2)
    text = text_of(space, spaces.Discrete(3))
    spec = make_spec("test", config, seen, discrete(3), text, find_out)

    # when
    policy = DevicePolicy(spec, np.random.default_rng(0), CPU)
    shapes = spec.weight_shapes()
    policy.load(1, {name: np.ones(shape, np.float32) for name, shape in shapes.items()})
    policy.begin(2)
    outputs = policy.outputs(np.ones((2, 8, 8), np.uint8), np.ones(2, np.bool_))

    # then
    assert outputs.shape == (2, 3)


def test_a_recording_that_fails_leaves_the_buffers_as_they_were() -> None:
    # given an engine whose recording ends in the middle, with a tensor that was never computed
    spec, config = run_with("Counting")
    engines: list[GpuEngine] = []

    def ends_early(compute: Any) -> Any:
        engines[0].network.extractor.mean = torch.full((2,), 1e3)
        raise RuntimeError("it asks for a number")

    engines += [GpuEngine(spec, config, CPU, ends_early), GpuEngine(spec, config, CPU)]

    # when it goes on without a graph, beside one that never tried
    learners = [Learner(config, engine) for engine in engines]
    for learner in learners:
        for seed in range(UPDATES_BEFORE_GRAPH + 2):
            updated(learner, seed)

    # then
    found, expected = (engine.begin_statistics()() for engine in engines)
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


@pytest.mark.parametrize("engine", ENGINES)
def test_another_runs_buffers_are_taken_with_its_weights(engine: str, tmp_path: Path) -> None:
    # given
    spec, config = run_with("Counting")
    other, learner = (Learner(config, ENGINES[engine](spec, config)) for _ in range(2))
    for seed in range(3):
        updated(other, seed)
    checkpoint.save(tmp_path, 3, *other.state(), keep=1)

    # when
    learner.begin_from(checkpoint.load(tmp_path))

    # then
    found, expected = learner.weights(), other.weights()
    for name in spec.statistic_shapes():
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)
