"""Updates by PopArt: no value moves, no size of rewards counts, and a resume keeps values."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from updates import POPART, REMEMBERING, Kind, figures_after, make_config, make_data, spec_of_kind

from impala_redis.common.errors import CheckpointError
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.gpu_engine import GpuEngine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine, TorchState
from impala_redis.common.learning.torch_inputs import inputs_of, moved
from impala_redis.common.normalizing.value_scales import scale_of
from impala_redis.common.records import checkpoint
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec
from masked import ONE_CHOICE, masked, some_masked_rows
from plain_networks import Floats

pytestmark = pytest.mark.usefixtures("one_thread")

ONE_TASK = {"popart": True, "reward_clipping": "none"}
KINDS = {
    "one task": Kind(ONE_TASK),
    "a memory": Kind({**POPART, **REMEMBERING}),
    "action masks": Kind(POPART, masked(), ONE_CHOICE),
}


def run_of_kind(kind: Kind, **changes: Any) -> tuple[RunSpec, Config]:
    config = make_config(**{"learning_rate": 1e-2, "optimizer": "adam"} | kind.changes | changes)
    return spec_of_kind(kind, config), config


def data_of(spec: RunSpec, seed: int) -> Batch:
    """A batch of random rows of all tasks but the last of several."""
    batch = make_data(spec, seed)
    rows = batch.rows
    rows.tasks[0] = np.arange(batch.size)[:, None] % max(1, spec.num_tasks - 1)
    if spec.observation.mask:
        shape = rows.is_first.shape
        rows.observations[:] = some_masked_rows(spec.observation, spec.action, *shape, seed=seed)
        rows.actions[:] = 0
        rows.observations[..., 0] = 1
    return batch


def values_of(learner: Learner, head: str = "model") -> NDArray[Any]:
    """What the learner expects of some rows [T+1, B, K], by its parameters or their mean."""
    engine = learner.engine
    assert isinstance(engine, TorchState)
    inputs, _ = inputs_of(moved(data_of(engine.spec, 99).rows, engine.device))
    tensors, _ = learner.state()
    own = {name: p.clone() for name, p in engine.network.named_parameters()}
    with torch.no_grad():
        for name, parameter in engine.network.named_parameters():
            parameter.copy_(torch.from_numpy(tensors[f"{head}.{name}"]))
        outputs = engine.network(inputs).baseline.numpy().astype(np.float64)
        for name, parameter in engine.network.named_parameters():
            parameter.copy_(own[name])
    mean, std = scale_of(engine.popart())
    values: NDArray[Any] = outputs * std + mean
    return values


@pytest.mark.parametrize("engine", [TorchEngine, GpuEngine])
@pytest.mark.parametrize("name", KINDS)
def test_an_update_moves_values_by_its_gradient_alone_and_finds_the_scales(
    name: str, engine: Any
) -> None:
    # given a learner whose gradients move nothing
    spec, config = run_of_kind(KINDS[name], learning_rate=0.0)
    device = (torch.device("cpu"),) if engine is GpuEngine else ()
    learner = Learner(config, engine(spec, config, *device))
    figures_after(learner, data_of(spec, 0))
    before = [values_of(learner, head) for head in ("model", "averaged")]
    scales = learner.engine.popart()

    # when, and one update is refused
    for seed in range(1, 6):
        batch = data_of(spec, seed)
        if seed == 3:
            batch.rows.rewards[:] = np.nan
        figures = figures_after(learner, batch)

    # then
    known = max(1, spec.num_tasks - 1)
    for was, head in zip(before, ("model", "averaged"), strict=True):
        moved = np.abs(values_of(learner, head) - was) / (scales["std"] + np.abs(was))
        assert moved.max() < 1e-5
    after = learner.engine.popart()
    assert learner.skipped == 1
    assert (after["seen"][:known] == 5).all() and (after["std"] != scales["std"])[:known].all()
    assert all((after[name][known:] == of[known:]).all() for name, of in scales.items())
    told = {name for name in figures if name.startswith("popart_std")}
    several = {f"popart_std:{task.name}" for task in spec.tasks}
    assert told == (several or {"popart_std"})


def test_no_size_of_rewards_changes_what_is_learned() -> None:
    # given runs whose rewards differ by a factor that floats multiply by exactly
    learners = []
    for reward_scale in (1.0, 1024.0):
        spec, config = run_of_kind(KINDS["one task"], reward_scale=reward_scale)
        learners.append(Learner(config, TorchEngine(spec, config)))

    # when
    for seed in range(5):
        one, other = (figures_after(learner, data_of(spec, seed)) for learner in learners)

    # then
    small, large = (learner.engine for learner in learners)
    np.testing.assert_array_equal(small.flat(), large.flat())
    assert large.popart()["std"] == 1024 * small.popart()["std"]
    assert one["total_loss"] == other["total_loss"]


@pytest.mark.parametrize("begins", ["resumes", "begins from it"])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ONE_TASK, {"reward_clipping": "none"}),
        ({"reward_clipping": "none"}, ONE_TASK),
        (ONE_TASK, {**ONE_TASK, "popart_least": 1.0, "reward_scale": 1000.0}),
    ],
    ids=["switched off", "switched on", "with other bounds"],
)
def test_a_run_goes_on_with_its_values_whatever_becomes_of_popart(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any], begins: str
) -> None:
    # given
    spec, config = run_of_kind(Kind(before))
    learner = Learner(config, TorchEngine(spec, config))
    for seed in range(5):
        figures_after(learner, data_of(spec, seed))
    checkpoint.save(tmp_path, 5, *learner.state(), keep=1)
    spec, config = run_of_kind(Kind(after))
    other = Learner(config, TorchEngine(spec, config))

    # when
    saved, resumes = checkpoint.load(tmp_path), begins == "resumes"
    (other.restore if resumes else other.begin_from)(saved)

    # then
    kinds = ("model", "averaged") if resumes else ("averaged", "averaged")
    for mine, theirs in zip(("model", "averaged"), kinds, strict=True):
        np.testing.assert_allclose(values_of(other, mine), values_of(learner, theirs), rtol=1e-4)
    if "popart" in before and "popart" in after:
        assert other.engine.popart()["seen"] == (5 if resumes else 0)
    assert np.isfinite(figures_after(other, data_of(spec, 6))["total_loss"])


@pytest.mark.parametrize("found", [np.ones(1, np.float32), np.full(1, np.nan), None], ids=str)
def test_garbled_statistics_are_refused_by_name(tmp_path: Path, found: Floats | None) -> None:
    # given
    spec, config = run_of_kind(KINDS["one task"])
    learner = Learner(config, TorchEngine(spec, config))
    tensors, facts = learner.state()
    tensors.pop("popart.std")
    if found is not None:
        tensors["popart.std"] = found
    checkpoint.save(tmp_path, 1, tensors, facts, keep=1)

    # when / then
    for begin in (learner.restore, learner.begin_from):
        with pytest.raises(CheckpointError, match=r"lacks or garbles .*popart\.std"):
            begin(checkpoint.load(tmp_path))
