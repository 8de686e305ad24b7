"""Updates under action masks: both engines agree, and what is forbidden has no gradient."""

from typing import Any

import numpy as np
import pytest

from impala_redis.common.blocks.trajectory import Trajectory
from impala_redis.common.encoding.masks import allowed, offsets
from impala_redis.common.learning.engine import Rates
from impala_redis.common.learning.numpy_engine import NumpyEngine
from impala_redis.common.mlp.parameters import views
from impala_redis.common.run.spaces import ActionSpec
from impala_redis.common.run.spec import RunSpec
from masked import ONE_CHOICE, SEVERAL_CHOICES, masked, some_masked_rows
from plain_networks import TorchUpdates, config_of, lively_weights, some_rows, spec_of

pytestmark = pytest.mark.usefixtures("one_thread")

B = 7


def rows_under_masks(spec: RunSpec, forbidden: int | None = None) -> Trajectory:
    """Random rows whose actions are allowed; `forbidden` is a choice that never is."""
    rows = some_rows(spec, B)
    rows.observations[...] = some_masked_rows(spec.observation, spec.action, *rows.is_first.shape)
    if forbidden is not None:
        rows.observations[..., forbidden] = 0
        rows.observations[..., forbidden - 1] = 1
    masks = allowed(spec.observation, rows.observations[:-1])
    chosen = [
        masks[..., first : first + size].argmax(-1)
        for first, size in zip(offsets(spec.action.sizes), spec.action.sizes, strict=True)
    ]
    rows.actions[...] = np.stack(chosen, -1).reshape(rows.actions.shape)
    return rows


@pytest.mark.parametrize("action", [ONE_CHOICE, SEVERAL_CHOICES], ids=["one", "several"])
@pytest.mark.parametrize(
    "changes",
    [
        {"entropy_cost": 0.3},
        {"correction": "epsilon"},
        {"returns": "monte_carlo", "correction": "none"},
    ],
    ids=str,
)
def test_the_gradient_is_torchs_and_exactly_zero_for_what_is_never_allowed(
    action: ActionSpec, changes: dict[str, Any]
) -> None:
    # given a last choice that no row allows
    config = config_of(**changes)
    spec = spec_of(config, action, masked())
    weights = lively_weights(spec)
    rows = rows_under_masks(spec, forbidden=4)
    engine = NumpyEngine(spec, config, weights, threads=1)

    # when
    assert engine.allows_step(rows, Rates(1e-3, config.loss.entropy_cost))
    found = views(engine.layout, engine._optimizer.gradient.copy())
    expected = TorchUpdates(spec, config, weights).gradient(rows)

    # then
    for name, gradient in expected.items():
        np.testing.assert_allclose(found[name], gradient, rtol=1e-4, atol=2e-5)
    for gradients in (found, expected):
        assert (gradients["policy.weight"][4] == 0).all()
        assert gradients["policy.bias"][4] == 0
        assert (gradients["policy.bias"][:3] != 0).all()


def test_an_update_leaves_the_logits_of_what_is_never_allowed_as_they_were() -> None:
    # given
    config = config_of(optimizer="rmsprop", learning_rate=0.1, entropy_cost=1.0)
    spec = spec_of(config, ONE_CHOICE, masked())
    weights = lively_weights(spec)
    engine = NumpyEngine(spec, config, weights, threads=1)

    # when
    for _ in range(3):
        step = engine.step(rows_under_masks(spec, forbidden=2), Rates(0.1, 1.0))
        assert step.taken
        assert all(np.isfinite(figure) for figure in step.figures.values())

    # then
    after = views(engine.layout, engine.flat())["policy.weight"]
    assert np.array_equal(after[2], weights["policy.weight"][2])
    assert not np.isclose(after[[0, 1, 3, 4]], weights["policy.weight"][[0, 1, 3, 4]]).any()
    assert step.figures["pi_mean_2"] == 0
    assert 0 < step.figures["entropy"] < np.log(4)
