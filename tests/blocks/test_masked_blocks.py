"""Blocks under action masks: masks that allow nothing and forbidden actions cost their columns."""

import numpy as np
import pytest

from impala_redis.common.blocks.checks import fit_part
from impala_redis.common.blocks.trajectory import Trajectory
from impala_redis.common.encoding.masks import mask_bytes
from impala_redis.common.errors import MessageRefused
from impala_redis.common.run.spaces import ActionSpec
from impala_redis.common.run.spec import RunSpec
from masked import ONE_CHOICE, SEVERAL_CHOICES, masked, some_masked_rows
from plain_networks import some_rows
from small_networks import make_spec

N = 4


def honest(action: ActionSpec) -> tuple[RunSpec, Trajectory]:
    """Rows in which everything is allowed, behind rows of zeros for what is before an episode."""
    spec = make_spec(masked(2), action=action)
    rows = some_rows(spec, N)
    rows.observations[...] = some_masked_rows(
        spec.observation, action, *rows.observations.shape[:2]
    )
    mask_bytes(spec.observation, rows.observations)[...] = 1
    rows.observations[:1] = 0
    return spec, rows


@pytest.mark.parametrize("action", [ONE_CHOICE, SEVERAL_CHOICES], ids=["one", "several"])
def test_a_mask_that_allows_nothing_costs_its_column(action: ActionSpec) -> None:
    # given a mask of which nothing is left of the last choice, in the last row
    spec, rows = honest(action)
    assert fit_part(rows, spec)[2] == ()
    mask_bytes(spec.observation, rows.observations)[-1, 2, -action.sizes[-1] :] = 0

    # when
    kept, fit, (unfit,) = fit_part(rows, spec)

    # then
    assert fit.tolist() == [True, True, False, True]
    assert kept.actions.shape[1] == 3
    assert (unfit.reason, unfit.kind, unfit.columns) == ("range", "observations", 1)
    assert "action_mask allows nothing" in unfit.explanation


@pytest.mark.parametrize("action", [ONE_CHOICE, SEVERAL_CHOICES], ids=["one", "several"])
def test_an_action_that_its_mask_forbids_costs_its_column(action: ActionSpec) -> None:
    # given a last action that the mask of its row, the last but one, does not allow
    spec, rows = honest(action)
    rows.actions[-1, 1] = 1
    mask_bytes(spec.observation, rows.observations)[-2, 1, 1] = 0

    # when
    _, fit, (unfit,) = fit_part(rows, spec)

    # then
    assert fit.tolist() == [True, False, True, True]
    assert (unfit.reason, unfit.kind) == ("range", "actions")
    assert "does not allow" in unfit.explanation


def test_actions_out_of_range_are_told_as_such_and_a_block_of_them_is_refused() -> None:
    spec, rows = honest(ONE_CHOICE)
    rows.actions[0] = 9
    with pytest.raises(MessageRefused, match=r"an action is not in 0 \.\. 4"):
        fit_part(rows, spec)
    rows.actions[0] = 0
    rows.observations[...] = np.zeros_like(rows.observations)
    with pytest.raises(MessageRefused, match="allows nothing"):
        fit_part(rows, spec)
