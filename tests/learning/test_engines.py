"""Which engine a run gets, and a run that goes on from one engine in the other."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from updates import figures_after

from impala_redis.common.errors import ConfigError
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning import engines
from impala_redis.common.learning.engine import AVERAGED_UPDATES
from impala_redis.common.learning.engines import check_engine, make_engine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.numpy_engine import NumpyEngine
from impala_redis.common.learning.torch_engine import TorchEngine, TorchState
from impala_redis.common.records import checkpoint
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec
from plain_networks import config_of, some_rows, spec_of

PICTURES = ObservationSpec((40, 40), "uint8")
NOT_PLAIN: dict[str, tuple[dict[str, Any], ObservationSpec | None]] = {
    "a memory": ({"lstm_size": 4}, None),
    "extra inputs": ({"extra_inputs": "last_action_reward"}, None),
    "convolutions": ({"network": "shallow"}, PICTURES),
    "stacked frames": ({"frame_stack": 2}, dataclasses.replace(PICTURES, frame_stack=2)),
    "values in units of their deviation": ({"popart": True, "reward_clipping": "none"}, None),
    "bfloat16": ({"precision": "bfloat16"}, None),
}


def made(wanted: str, device: str = "cpu", config: Config | None = None) -> Any:
    config = config or config_of()
    return make_engine(wanted, device, 1, spec_of(config), config)


def learner_of(engine: str, config: Config) -> Learner:
    return Learner(config, made(engine, config=config))


def batch_of(config: Config, seed: int) -> Batch:
    return Batch(some_rows(spec_of(config), 5, seed))


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_a_plain_network_is_computed_in_numpy_and_by_torch_if_wanted(device: str) -> None:
    assert isinstance(made("auto", device), NumpyEngine)
    assert isinstance(made("numpy", device), NumpyEngine)
    assert isinstance(made("torch", "cpu"), TorchEngine)


@pytest.mark.parametrize("name", NOT_PLAIN)
def test_all_else_is_computed_by_torch_and_numpy_is_refused_with_the_reason(name: str) -> None:
    # given
    changes, observation = NOT_PLAIN[name]
    config = config_of(**changes)
    spec = spec_of(config, observation=observation or ObservationSpec((3,), "float32"))

    # when / then
    assert isinstance(make_engine("auto", "cpu", 1, spec, config), TorchEngine)
    with pytest.raises(ConfigError, match=r"--engine numpy cannot be used: .*; use --engine auto"):
        make_engine("numpy", "cpu", 1, spec, config)


def test_a_cpu_computes_in_float32_where_tf32_is_asked_for() -> None:
    assert isinstance(made("auto", config=config_of(precision="tf32")), NumpyEngine)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
@pytest.mark.parametrize("initial_std", [0.2, 3.0])
def test_a_run_begins_with_the_deviation_that_is_asked_for(engine: str, initial_std: float) -> None:
    # given actions that are numbers
    config = config_of(initial_std=initial_std)
    spec = spec_of(config, ActionSpec("continuous", (2,)))

    # when
    weights = Learner(config, make_engine(engine, "cpu", 1, spec, config)).weights()

    # then
    np.testing.assert_allclose(np.exp(weights["log_std"]), initial_std, rtol=1e-6)


def test_numpy_is_refused_for_a_group_of_learners() -> None:
    config = config_of()
    for wanted in ("auto", "torch"):
        check_engine(wanted, "cpu", spec_of(config), config, ranks=2)
    with pytest.raises(ConfigError, match=r"for one learner alone, and this group has 2; use --en"):
        check_engine("numpy", "cpu", spec_of(config), config, ranks=2)


def test_numpy_is_refused_for_a_gpu() -> None:
    with pytest.raises(ConfigError, match="asks for a GPU"):
        made("numpy", "cuda")


def test_torch_is_asked_for_a_gpu_only_for_a_large_network_where_one_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # given
    large = config_of(hidden_sizes=(400, 400))

    # when there is no sign of a GPU
    monkeypatch.setattr(engines, "GPU_FILES", (tmp_path / "none",))
    without = made("auto", "auto", large)

    # and when there is one
    monkeypatch.setattr(engines, "GPU_FILES", (tmp_path,))
    with_one, small, on_cpu = (
        made("auto", "auto", large),
        made("auto", "auto"),
        made("auto", "cpu", large),
    )

    # then
    assert isinstance(without, NumpyEngine)
    assert isinstance(with_one, TorchState)
    assert isinstance(small, NumpyEngine)
    assert isinstance(on_cpu, NumpyEngine)


def test_both_engines_begin_with_the_same_checkpoint() -> None:
    # given
    config = config_of(seed=7)
    numpy_tensors, numpy_facts = learner_of("numpy", config).state()
    torch_tensors, torch_facts = learner_of("torch", config).state()

    # then
    assert numpy_facts == torch_facts
    assert list(numpy_tensors) == list(torch_tensors)
    for name, tensor in torch_tensors.items():
        assert numpy_tensors[name].dtype == tensor.dtype
        np.testing.assert_allclose(numpy_tensors[name], tensor, atol=2e-5, err_msg=name)
    np.testing.assert_array_equal(numpy_tensors["rng.torch"], torch_tensors["rng.torch"])


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize(("first", "second"), [("numpy", "torch"), ("torch", "numpy")])
def test_a_run_goes_on_in_the_other_engine_as_in_its_own(
    tmp_path: Path, first: str, second: str, optimizer: str
) -> None:
    # given a run of three updates
    config = config_of(optimizer=optimizer, learning_rate=0.01, rmsprop_momentum=0.5)
    whole = learner_of(first, config)
    for seed in range(3):
        whole.update(batch_of(config, seed))
    checkpoint.save(tmp_path, whole.updates, *whole.state(), keep=1)

    # when it goes on in both
    other = learner_of(second, config)
    other.restore(checkpoint.load(tmp_path))
    kept = other.state()[0]["rng.torch"]
    for seed in range(3, 6):
        expected, found = (
            figures_after(learner, batch_of(config, seed)) for learner in (whole, other)
        )

        # then they tell the same
        assert set(found) == set(expected)
        for name in expected:
            if not name.endswith("_s"):
                assert found[name] == pytest.approx(expected[name], rel=1e-4, abs=1e-5), name

    # and reach the same
    assert (other.updates, other.version) == (6, 6)
    np.testing.assert_array_equal(kept, whole.state()[0]["rng.torch"])
    for name, tensor in whole.state()[0].items():
        np.testing.assert_allclose(other.state()[0][name], tensor, atol=2e-5, err_msg=name)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_the_mean_of_the_weights_is_over_the_updates_and_at_last_over_the_last_thirty(
    engine: str,
) -> None:
    # given
    config = config_of(optimizer="adam", learning_rate=0.01)
    learner = learner_of(engine, config)
    flat = learner.engine.flat

    # when it has made fewer updates, then the mean is that of the weights after each
    after = []
    for seed in range(AVERAGED_UPDATES):
        learner.update(batch_of(config, seed))
        after.append(flat())
    np.testing.assert_allclose(learner.engine.averaged(), np.mean(after, 0), atol=1e-5)

    # when it makes one more, then the mean moves by a thirtieth of the way
    before = learner.engine.averaged()
    learner.update(batch_of(config, 99))
    moved = before + (flat() - before) / AVERAGED_UPDATES
    np.testing.assert_allclose(learner.engine.averaged(), moved, atol=1e-6)

    # and an update that is refused moves nothing
    bad = batch_of(config, 0)
    bad.rows.rewards[:] = np.nan
    learner.update(bad)
    np.testing.assert_allclose(learner.engine.averaged(), moved, atol=1e-6)


@pytest.mark.parametrize("engine", ["numpy", "torch"])
def test_a_checkpoint_without_a_mean_as_of_0_1_begins_one_at_its_weights(
    tmp_path: Path, engine: str
) -> None:
    # given
    config = config_of()
    learner = learner_of(engine, config)
    learner.update(batch_of(config, 0))
    tensors, facts = learner.state()
    old = {name: t for name, t in tensors.items() if not name.startswith("averaged.")}
    checkpoint.save(tmp_path, 1, old, facts, keep=1)

    # when
    other = learner_of(engine, config)
    other.restore(checkpoint.load(tmp_path))

    # then
    np.testing.assert_array_equal(other.engine.averaged(), learner.engine.flat())


def test_a_plain_network_is_learned_without_importing_torch() -> None:
    code = (
        "import sys\n"
        "from impala_redis.common.learning.engines import make_engine\n"
        "from impala_redis.common.learning.learner import Learner\n"
        "from impala_redis.common.presets.table import preset\n"
        "from impala_redis.common.run.spaces import ObservationSpec, discrete\n"
        "from impala_redis.common.run.spec import make_spec\n"
        "config = preset('cartpole')\n"
        "spec = make_spec('run', config, ObservationSpec((4,), 'float32'), discrete(2))\n"
        "Learner(config, make_engine('auto', 'auto', 1, spec, config)).state()\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
