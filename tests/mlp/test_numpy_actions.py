"""Log-probabilities, entropies and their gradients in numpy, held to those in torch."""

import numpy as np
import pytest
import torch

from impala_redis.common.loss.distributions import evaluate_actions
from impala_redis.common.mlp.actions import actions_of
from impala_redis.common.run.spaces import LOG_STD_LEAST, LOG_STD_MOST, ActionSpec, discrete
from small_networks import ACTIONS, some_actions

N = 11


@pytest.mark.parametrize("with_entropies", [True, False])
@pytest.mark.parametrize("action", [*ACTIONS.values(), discrete(1), discrete(40)], ids=str)
def test_statistics_and_gradients_are_torchs(action: ActionSpec, with_entropies: bool) -> None:
    # given outputs, actions, and a loss that weighs the statistics of each row
    rng = np.random.default_rng(0)
    outputs = rng.normal(0, 2, (sum(action.sizes), N)).astype(np.float32)
    done = some_actions(action, N)
    by_log_probs, by_entropies = rng.normal(0, 1, (2, N)).astype(np.float32)
    log_std = None
    if action.kind == "continuous":
        log_std = rng.normal(0, 0.5, action.sizes).astype(np.float32)
        log_std[0] = LOG_STD_MOST + 0.1  # out of its range: no gradient
        log_std[1] = LOG_STD_LEAST  # still within

    # when
    computing = actions_of(action, log_std)
    found = computing.evaluate(outputs, done)
    by_outputs, by_log_std = (
        np.empty_like(outputs),
        np.empty_like(log_std if log_std is not None else outputs[:0, 0]),
    )
    computing.backward(
        by_log_probs, by_entropies if with_entropies else None, by_outputs, by_log_std
    )

    # then
    tensor = torch.from_numpy(outputs.T.copy()).requires_grad_()
    wanted, policy = [tensor], tensor
    if log_std is not None:
        deviations = torch.from_numpy(log_std).requires_grad_()
        wanted.append(deviations)
        clamped = deviations.clamp(LOG_STD_LEAST, LOG_STD_MOST)
        means = tensor.tanh() if action.bounded else tensor
        policy = torch.cat([means, clamped.expand_as(means)], -1)
    statistics = evaluate_actions(action, policy, torch.from_numpy(done))
    loss = (statistics.log_probs * torch.from_numpy(by_log_probs)).sum()
    if with_entropies:
        loss = loss + (statistics.entropies * torch.from_numpy(by_entropies)).sum()
    expected, *others = torch.autograd.grad(loss, wanted)
    close = {"rtol": 1e-5, "atol": 1e-5}
    np.testing.assert_allclose(found.log_probs, statistics.log_probs.detach(), **close)
    np.testing.assert_allclose(found.entropies, statistics.entropies.detach(), **close)
    # Where a deviation is exp(-5), the rounding of a mean counts 22,000 times.
    np.testing.assert_allclose(by_outputs.T, expected, rtol=2e-4, atol=1e-5)
    for other in others:
        np.testing.assert_allclose(by_log_std, other, rtol=1e-4, atol=1e-4)
    if statistics.probabilities is not None:
        assert found.probabilities is not None
        np.testing.assert_allclose(
            found.probabilities.T, statistics.probabilities.detach(), **close
        )


def test_logits_that_are_far_apart_give_finite_statistics() -> None:
    # given
    computing = actions_of(discrete(2), None)
    outputs = np.array([[1e4, -1e4], [-1e4, 3e38]], np.float32)

    # when
    found = computing.evaluate(outputs, np.array([0, 1], np.int32))
    by_outputs = np.empty_like(outputs)
    ones = np.ones(2, np.float32)
    computing.backward(ones, ones, by_outputs, np.empty(0, np.float32))

    # then
    np.testing.assert_array_equal(found.log_probs, 0.0)
    np.testing.assert_array_equal(found.entropies, 0.0)
    np.testing.assert_array_equal(by_outputs, 0.0)
