"""The learner's state: one update, what it counts, and that a resume goes on bit for bit."""

import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from updates import B, T, figures_after, make_config, make_data, spec_of

from impala_redis.common.errors import CheckpointError, DeviceFull, NotFinite
from impala_redis.common.learning import torch_engine
from impala_redis.common.learning.gpu_engine import GpuEngine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.records import checkpoint
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import (
    LOG_STD_LEAST,
    LOG_STD_MOST,
    ActionSpec,
    ObservationSpec,
)
from impala_redis.common.run.spec import RunSpec, make_spec

CPU = torch.device("cpu")


def make_learner(config: Config) -> Learner:
    return Learner(config, TorchEngine(spec_of(config), config))


def train(learner: Learner, spec: RunSpec, seeds: range) -> list[dict[str, float]]:
    """The figures of some updates, but for the times that they took."""
    updates = [figures_after(learner, make_data(spec, seed)) for seed in seeds]
    return [{k: v for k, v in figures.items() if not k.endswith("_s")} for figures in updates]


def weights_of(learner: Learner) -> dict[str, Any]:
    return {name: array.tolist() for name, array in learner.weights().items()}


def assert_same_state(one: Learner, other: Learner) -> None:
    (tensors, facts), (other_tensors, other_facts) = one.state(), other.state()
    assert facts == other_facts
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(tensor, other_tensors[name], err_msg=name, strict=True)


def test_published_weights_tell_the_share_of_the_training_that_is_done() -> None:
    # given a run of the frames of four updates, of which some rows are masked
    config = make_config(total_frames=4 * B * T)
    learner, spec = make_learner(config), spec_of(config)
    assert learner.versioned_weights().progress == 0.0

    # when / then
    train(learner, spec, range(2))
    assert 0 < learner.frames < 4 * B * T
    assert learner.versioned_weights().progress == learner.frames / (4 * B * T)

    # and a run that has gone on beyond its frames is done, and no more
    train(learner, spec, range(2, 8))
    assert learner.frames > 4 * B * T
    assert learner.versioned_weights().progress == 1.0


OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "adam", "learning_rate": 1e-2},
    {"optimizer": "rmsprop", "learning_rate": 1e-2},
    {"optimizer": "rmsprop", "rmsprop_momentum": 0.9},
    {"optimizer": "adam", "learning_rate_schedule": "constant", "reduction": "mean"},
    {"optimizer": "adam", "popart": True, "reward_clipping": "none", "lstm_size": 4},
]


@pytest.mark.parametrize("changes", OPTIMIZERS, ids=lambda changes: " ".join(map(str, changes)))
def test_a_restored_learner_goes_on_bit_for_bit(changes: dict[str, Any], tmp_path: Path) -> None:
    # given
    config = make_config(**changes)
    spec = spec_of(config)
    learner = make_learner(config)
    train(learner, spec, range(5))
    torch.rand(3)  # the generator has moved on since the seed
    tensors, facts = learner.state()
    checkpoint.save(tmp_path, learner.updates, tensors, facts, keep=1)
    figures = train(learner, spec, range(5, 10))
    draws = torch.rand(3)

    # when
    restored = make_learner(config.replace({"seed": 99}))
    restored.restore(checkpoint.load(tmp_path))
    restored_figures = train(restored, spec, range(5, 10))
    restored_draws = torch.rand(3)

    # then
    assert restored_figures == figures
    assert torch.equal(restored_draws, draws)
    assert_same_state(restored, learner)


def test_a_restored_learner_is_where_the_checkpoint_was_made(tmp_path: Path) -> None:
    # given
    config = make_config()
    spec = spec_of(config)
    learner = make_learner(config)
    train(learner, spec, range(4))
    learner.version = 17  # as after a take-over
    checkpoint.save(tmp_path, 4, *learner.state(), keep=1)

    # when
    restored = make_learner(config)
    restored.restore(checkpoint.load(tmp_path))

    # then
    assert_same_state(restored, learner)
    assert (restored.version, restored.updates, restored.frames) == (17, 4, learner.frames)
    assert restored.window.episodes == learner.window.episodes == 4 * 60
    assert len(learner.window.returns) == 100
    assert restored.window.returns == learner.window.returns


def test_the_saved_state_does_not_change_with_further_training() -> None:
    # given
    config = make_config()
    spec = spec_of(config)
    learner = make_learner(config)
    train(learner, spec, range(2))

    # when
    tensors, facts = learner.state()
    before = {name: tensor.copy() for name, tensor in tensors.items()}, dict(facts)
    published = learner.weights()
    published_before = {name: array.copy() for name, array in published.items()}
    train(learner, spec, range(2, 4))

    # then
    assert facts == before[1]
    assert all((tensors[name] == before[0][name]).all() for name in tensors)
    assert all((published[name] == published_before[name]).all() for name in published)


@pytest.mark.parametrize(
    ("changes", "features", "num_actions", "named"),
    [
        ({"hidden_sizes": [9]}, 2, 3, "torso.0.weight"),
        ({"hidden_sizes": [8, 8]}, 2, 3, "torso.1.weight"),
        ({"hidden_sizes": []}, 2, 3, "policy.weight"),
        ({}, 4, 3, "torso.0.weight"),
        ({}, 2, 5, "policy.weight"),
        ({"optimizer": "adam"}, 2, 3, "optimizer.average"),
    ],
)
def test_the_state_of_another_network_or_optimizer_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], features: int, num_actions: int, named: str
) -> None:
    # given
    checkpoint.save(tmp_path, 1, *make_learner(make_config()).state(), keep=1)
    config = make_config(**changes)
    spec = spec_of(config, features, num_actions)
    other = Learner(config, TorchEngine(spec, config))

    # when / then
    with pytest.raises(CheckpointError, match=named):
        other.restore(checkpoint.load(tmp_path))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("version", None),
        ("version", "many"),
        ("updates", []),
        ("frames", {}),
        ("optimizer_steps", None),
        ("returns", None),
        ("returns", 5),
        ("returns", ["x"]),
        ("returns", [None]),
        ("episodes", None),
    ],
)
def test_garbled_facts_are_refused(tmp_path: Path, name: str, value: Any) -> None:
    # given
    learner = make_learner(make_config())
    tensors, facts = learner.state()

    for garbled in ({**facts, name: value}, {k: v for k, v in facts.items() if k != name}):
        checkpoint.save(tmp_path, 1, tensors, garbled, keep=1)

        # when / then
        with pytest.raises(CheckpointError, match=r"lacks or garbles|none of the 1 checkpoints"):
            make_learner(make_config()).restore(checkpoint.load(tmp_path))


@pytest.mark.parametrize("value", [None, np.zeros(3, np.uint8), np.zeros(3, np.float32)])
def test_garbled_random_numbers_are_refused(tmp_path: Path, value: Any) -> None:
    # given
    tensors, facts = make_learner(make_config()).state()
    del tensors["rng.torch"]
    extra = {} if value is None else {"rng.torch": value}
    checkpoint.save(tmp_path, 1, {**tensors, **extra}, facts, keep=1)

    # when / then
    with pytest.raises(CheckpointError, match="lacks or garbles"):
        make_learner(make_config()).restore(checkpoint.load(tmp_path))


def test_an_update_changes_every_parameter() -> None:
    # given
    config = make_config()
    learner = make_learner(config)
    before = learner.weights()

    # when
    learner.update(make_data(spec_of(config), seed=0))

    # then
    after = learner.weights()
    assert all((after[name] != before[name]).any() for name in before)
    assert list(after) == list(spec_of(config).parameter_shapes())


def test_version_frames_updates_and_episodes_are_counted() -> None:
    # given
    config = make_config()
    spec, learner = spec_of(config), make_learner(config)
    batches = [make_data(spec, seed) for seed in range(3)]

    # when
    for batch in batches:
        learner.update(batch)

    # then: fake rows are no frames
    frames = sum(int(batch.rows.mask.sum()) for batch in batches)
    assert 0 < frames < 3 * T * B
    assert (learner.version, learner.updates, learner.frames) == (3, 3, frames)
    assert learner.window.episodes == 3 * 60
    returns = [episode.episode_return for batch in batches for episode in batch.episodes]
    assert len(learner.window.returns) == 100
    assert set(returns[-60:]) < set(learner.window.returns) < set(returns)


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
@pytest.mark.parametrize("name", ["rewards", "observations", "behaviour_log_probs"])
def test_data_that_is_not_finite_changes_no_weight_and_is_counted(
    name: str, optimizer: str
) -> None:
    # given
    config = make_config(optimizer=optimizer, reward_clipping="none")
    spec, learner = spec_of(config), make_learner(config)
    train(learner, spec, range(2))
    weights = weights_of(learner)
    steps = learner.state()[1]["optimizer_steps"]

    # when
    for seed in range(3):
        batch = make_data(spec, seed)
        batch.rows.mask[0, 0] = True
        getattr(batch.rows, name)[0, 0] = np.nan
        learner.update(batch)

    # then
    assert (learner.skipped, learner.faults_in_a_row) == (3, 0)  # the network is sound
    assert weights_of(learner) == weights
    assert learner.state()[1]["optimizer_steps"] == steps
    assert (learner.version, learner.updates) == (5, 5)


def test_weights_that_are_not_finite_are_given_to_nobody() -> None:
    learner = make_learner(make_config())
    with torch.no_grad():
        dict(learner.engine.network.named_parameters())["policy.bias"][0] = torch.inf
    for give in (learner.weights, learner.state):
        with pytest.raises(NotFinite, match=r"policy\.bias"):
            give()


def test_an_update_ends_a_row_of_faults_of_the_network() -> None:
    # given a network that has grown too large for one update
    config = make_config(reward_clipping="none")
    spec, learner = spec_of(config), make_learner(config)
    train(learner, spec, range(1))
    before = weights_of(learner)
    kept = {name: p.detach().clone() for name, p in learner.engine.network.named_parameters()}
    with torch.no_grad():
        for parameter in learner.engine.network.parameters():
            parameter.fill_(1e38)
    learner.update(make_data(spec, seed=0))
    assert learner.faults_in_a_row == 1

    # when
    learner.engine.network.load_state_dict(kept)
    learner.update(make_data(spec, seed=1))

    # then
    assert learner.faults_in_a_row == 0
    assert weights_of(learner) != before
    assert np.isfinite(learner.weights()["policy.weight"]).all()


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop"])
def test_the_schedules_fall_to_zero_at_total_frames(optimizer: str) -> None:
    # given: nothing but the entropy bonus has a gradient on the policy
    config = make_config(
        optimizer=optimizer,
        learning_rate=1e-2,
        learning_rate_schedule="linear",
        entropy_schedule="linear",
        total_frames=100,
    )
    spec, learner = spec_of(config), make_learner(config)

    # when
    rates = []
    for frames in (0, 50, 100, 150):
        learner.frames = frames
        before = weights_of(learner)
        rates.append(figures_after(learner, make_data(spec, seed=0))["learning_rate"])

    # then
    assert rates == pytest.approx([1e-2, 5e-3, 0.0, 0.0])
    assert weights_of(learner) == before


def test_the_entropy_cost_follows_its_schedule() -> None:
    # given: the same batch and network, only further on
    config = make_config(entropy_cost=1.0, entropy_schedule="linear", reduction="mean")
    spec = spec_of(config)
    totals = []

    # when
    for frames in (0, 500, 1000):
        learner = make_learner(config)
        learner.frames = frames
        figures = figures_after(learner, make_data(spec, seed=0))
        rest = figures["policy_loss"] + 0.5 * figures["baseline_loss"]
        totals.append((rest - figures["total_loss"]) / figures["entropy"])

    # then
    assert totals == pytest.approx([1.0, 0.5, 0.0], abs=1e-5)


def test_the_figures_of_an_update_are_plain_numbers() -> None:
    # given
    config = make_config()

    # when
    figures = figures_after(make_learner(config), make_data(spec_of(config), seed=0))

    # then
    assert set(figures) == {
        "total_loss",
        "policy_loss",
        "baseline_loss",
        "entropy",
        "grad_norm",
        "learning_rate",
        "rho_mean",
        "rho_min",
        "rho_max",
        "rho_clipped_share",
        "c_clipped_share",
        "learned_share",
        *("pi_mean_0", "pi_mean_1", "pi_mean_2"),
        *("transfer_s", "forward_s", "backward_s", "optimizer_s"),
    }
    assert all(type(value) in (int, float) and np.isfinite(value) for value in figures.values())
    assert figures["rho_min"] <= figures["rho_mean"] <= figures["rho_max"]
    assert sum(figures[f"pi_mean_{a}"] for a in range(3)) == pytest.approx(1.0)


def test_the_device_was_busy_for_the_stages_of_all_updates() -> None:
    # given
    config = make_config()
    learner, spec = make_learner(config), spec_of(config)
    assert learner.device_s == 0.0

    # when
    updates = [figures_after(learner, make_data(spec, seed)) for seed in range(3)]

    # then
    stages = ("transfer_s", "forward_s", "backward_s", "optimizer_s")
    took_s = sum(figures[stage] for figures in updates for stage in stages)
    assert learner.device_s == pytest.approx(took_s)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 G"
            ),
            "CUDA out of memory. Tried to allocate 2.00 GiB",
        ),
        (
            torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be"),
            "CUDA error: out of memory",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`"),
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(h)`",
        ),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_gpu_without_memory_is_one_sentence_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, error: RuntimeError, reason: str
) -> None:
    # given the words of torch's own pools, of CUDA and of cuBLAS
    config = make_config()
    learner = Learner(config, GpuEngine(spec_of(config), config, CPU))

    def fails(*_: Any) -> Any:
        raise error

    # when they come in an update, and when a network is made
    sentence = rf"no memory left \({re.escape(reason)}\); end .* lower --batch-size"
    monkeypatch.setattr(learner.engine.network, "forward", fails)
    with pytest.raises(DeviceFull, match=sentence):
        learner.update(make_data(spec_of(config), seed=0))
    monkeypatch.setattr(torch_engine, "make_network", fails)
    with pytest.raises(DeviceFull, match=sentence):
        GpuEngine(spec_of(config), config, CPU)

    # then no update was counted
    assert (learner.updates, learner.settle()) == (0, [])


def test_another_error_in_an_update_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config()
    learner = make_learner(config)

    def fails(*_: Any) -> Any:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(learner.engine.network, "forward", fails)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        learner.update(make_data(spec_of(config), seed=0))


@pytest.mark.parametrize("out", [LOG_STD_LEAST - 1.0, LOG_STD_MOST + 1.0])
def test_deviations_that_a_step_took_out_of_their_range_come_back(out: float) -> None:
    # given
    config = make_config(entropy_cost=10.0, learning_rate=0.01, optimizer="adam")
    action = ActionSpec("continuous", (2,))
    spec = make_spec("test", config, ObservationSpec((2,), "float32"), action)
    learner = Learner(config, TorchEngine(spec, config))
    learner.engine.network.get_parameter("log_std").data.fill_(out)

    # when it is trained with a bonus for wide ones
    for seed in range(5):
        learner.update(make_data(spec, seed))

    # then they are in it, and what is published says so
    found = learner.weights()["log_std"]
    assert ((found > LOG_STD_LEAST) & (found <= LOG_STD_MOST)).all()


@pytest.mark.parametrize(
    "changes",
    [{}, {"activation": "relu"}, {"lstm_size": 8, "extra_inputs": "last_action_reward"}],
    ids=str,
)
def test_bfloat16_products_learn_nearly_what_float32_ones_do(changes: dict[str, Any]) -> None:
    # given: a step of plain SGD's direction
    rule = {"optimizer": "adam", "adam_beta1": 0.0, "adam_beta2": 0.0, "adam_epsilon": 1e6}
    exact = make_config(**rule, learning_rate=1e3, hidden_sizes=[32], **changes)
    rough = exact.replace({"precision": "bfloat16"})
    figures, steps = [], []

    # when
    for config in (exact, rough):
        learner = make_learner(config)
        before = learner.weights()
        figures.append(figures_after(learner, make_data(spec_of(config), seed=1)))
        after = learner.weights()
        steps.append(np.concatenate([(after[n] - before[n]).ravel() for n in before]))

    # then: rounded, and no more than rounded
    one, other = steps
    assert (one != other).any()
    assert one @ other > 0.99 * np.linalg.norm(one) * np.linalg.norm(other)
    assert all(np.isfinite(value) for value in figures[1].values())
    for name in ("total_loss", "policy_loss", "baseline_loss", "entropy", "rho_mean"):
        assert figures[1][name] == pytest.approx(figures[0][name], rel=0.05, abs=0.05), name


def test_the_stages_of_an_update_are_no_longer_than_the_update() -> None:
    # given
    config = make_config()
    learner, batch = make_learner(config), make_data(spec_of(config), seed=0)

    # when
    started = time.perf_counter()
    figures = figures_after(learner, batch)
    update_s = time.perf_counter() - started

    # then
    stages = [figures[f"{stage}_s"] for stage in ("transfer", "forward", "backward", "optimizer")]
    assert min(stages) > 0
    assert sum(stages) <= update_s


def test_the_actions_of_a_large_space_are_not_told_one_by_one() -> None:
    config = make_config()
    spec = spec_of(config, num_actions=9)
    figures = figures_after(Learner(config, TorchEngine(spec, config)), make_data(spec, seed=0))
    assert not any(name.startswith("pi_mean") for name in figures)


def test_the_same_seed_and_data_give_the_same_training() -> None:
    # given
    config = make_config(seed=5)
    spec = spec_of(config)

    # when
    one, other = make_learner(config), None
    figures = train(one, spec, range(3))
    other = make_learner(config)
    other_figures = train(other, spec, range(3))

    # then
    assert figures == other_figures
    assert weights_of(one) == weights_of(other)
    assert weights_of(make_learner(make_config(seed=6))) != weights_of(make_learner(config))
