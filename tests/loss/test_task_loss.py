"""The loss of a batch of several tasks: each column has its own task's rewards and baseline."""

import numpy as np
import pytest
import torch
from updates import POPART, make_config, make_data, spec_of

from impala_redis.common.learning.torch_inputs import inputs_of, moved
from impala_redis.common.loss.impala import impala_loss
from impala_redis.common.loss.task_loss import TaskLoss

CPU = torch.device("cpu")


@pytest.mark.parametrize("popart", [False, True])
def test_each_column_learns_its_own_tasks_values_of_rewards_scaled_as_that_task_says(
    popart: bool,
) -> None:
    # given three tasks of other scales, and a column of each
    config = make_config(**{**POPART, "popart": popart})
    spec = spec_of(config)
    _, rows = inputs_of(moved(make_data(spec, 0).rows, CPU))
    rows = rows._replace(tasks=torch.tensor([2, 0, 1]))
    outputs, baseline = torch.randn(4, 3, 3), torch.randn(5, 3, 3, requires_grad=True)
    loss = TaskLoss(spec, config.loss, CPU)

    # when
    found = loss.of(outputs, baseline, rows, 0.01, 1.0)
    (gradient,) = torch.autograd.grad(found.total, baseline)

    # then it is the sum of the losses of columns, each in units of its range if PopArt is on
    total = 0.0
    for column, task in enumerate(rows.tasks.tolist()):
        scale = spec.tasks[task].reward_scale
        size = abs(spec.tasks[task].reference) * scale
        own = slice(column, column + 1)
        alone = rows._replace(**{name: of[..., own] for name, of in rows._asdict().items()})
        alone = alone._replace(rewards=alone.rewards * scale / (size if popart else 1.0))
        losses, _ = impala_loss(
            spec.action, outputs[:, own], baseline[:, own, task], alone, config.loss, 0.01
        )
        total += losses.total.item()
        others = [other for other in range(3) if other != task]
        assert (gradient[:, column, others] == 0).all() and gradient[:, column, task].any()
    assert found.total.item() == pytest.approx(total, rel=1e-5)
    assert list(found.scalars) == loss.names
    assert (found.sums is not None) == popart
    if found.sums is not None:
        by_task = rows.mask.sum(0)[np.array([1, 2, 0])]
        np.testing.assert_array_equal(found.sums[0], by_task)
