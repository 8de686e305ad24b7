"""The paper's variants against their definitions, row by row; REINFORCE's whole returns."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from impala_redis.common.loss.corrections import corrected_returns, whole_returns
from impala_redis.common.loss.impala import LossInput, impala_loss
from impala_redis.common.run.groups import LossSettings
from impala_redis.common.run.spaces import discrete

Floats = NDArray[np.float64]

T, B, A = 7, 4, 3
ACTION = discrete(A)
GAMMA = 0.9


class Case(NamedTuple):
    """A batch in float64: ends by termination and by truncation, in the middle and at the end."""

    logits: torch.Tensor  # [T, B, A]
    values: torch.Tensor  # [T+1, B]
    rows: LossInput


def make_case(seed: int) -> Case:
    rng = np.random.default_rng(seed)
    discounts, mask = np.ones((T, B)), np.ones((T, B), np.bool_)
    discounts[1, 0], mask[2, 0] = 0.0, False  # terminated, and goes on with another episode
    mask[4, 1] = False  # truncated after row 3
    discounts[T - 1, 2] = 0.0  # terminated at the very end: no fake row is seen
    # Column 3 has no end.
    rows = LossInput(
        actions=torch.tensor(rng.integers(0, A, (T, B))),
        rewards=torch.tensor(rng.normal(0.0, 2.0, (T, B)) * mask),
        discounts=torch.tensor(discounts),
        behaviour_log_probs=torch.tensor(np.log(rng.uniform(0.1, 0.9, (T, B)))),
        mask=torch.tensor(mask),
        tasks=torch.zeros(B, dtype=torch.int64),
    )
    logits = torch.tensor(rng.normal(0.0, 1.0, (T, B, A)), requires_grad=True)
    values = torch.tensor(rng.normal(0.0, 1.0, (T + 1, B)), requires_grad=True)
    return Case(logits, values, rows)


def settings(**changes: Any) -> LossSettings:
    return LossSettings(**({"reward_clipping": "none", "discounting": GAMMA} | changes))


def slow_return(case: Case, values: Floats, t: int, b: int) -> float:
    """The discounted rewards from row t to the episode's end or the unroll's, then the value."""
    rewards, discounts, mask = (x.numpy() for x in (case.rows[1], case.rows[2], case.rows[4]))
    total, factor = 0.0, 1.0
    for k in range(t, T):
        if not mask[k, b]:  # truncated: this observation is the true final one
            return total + factor * values[k, b]
        total += factor * rewards[k, b]
        factor *= GAMMA * discounts[k, b]
    return float(total + factor * values[T, b])


def slow_variant(case: Case, correction: str, clip: float | None) -> tuple[Floats, Floats]:
    """Targets and advantages of the variants without traces, 0 on fake rows."""
    values = case.values.detach().numpy()
    pi = torch.softmax(case.logits.detach(), -1).numpy()
    vs, advantages = values[:-1].copy(), np.zeros((T, B))
    for t, b in np.argwhere(case.rows.mask.numpy()):
        vs[t, b] = slow_return(case, values, t, b)
        advantages[t, b] = vs[t, b] - values[t, b]
        if correction == "one_step":
            mu = np.exp(case.rows.behaviour_log_probs[t, b].item())
            rho = pi[t, b, case.rows.actions[t, b]] / mu
            advantages[t, b] *= rho if clip is None else min(rho, clip)
    return vs, advantages


def log_rhos_of(case: Case) -> torch.Tensor:
    log_policy = torch.log_softmax(case.logits.detach(), -1)
    taken = log_policy.gather(-1, case.rows.actions.unsqueeze(-1)).squeeze(-1)
    return (taken - case.rows.behaviour_log_probs).masked_fill(~case.rows.mask, float("-inf"))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("clip", [1.0, 0.5, None])
@pytest.mark.parametrize("correction", ["one_step", "epsilon", "none"])
def test_the_variants_without_traces_equal_their_definition(
    correction: str, clip: float | None, seed: int
) -> None:
    # given
    case = make_case(seed)
    s = settings(correction=correction, clip_pg_rho=clip)

    # when
    discounts = case.rows.discounts * GAMMA
    values = case.values.detach()
    found = corrected_returns(log_rhos_of(case), discounts, case.rows.rewards, values, s)

    # then
    vs, advantages = slow_variant(case, correction, clip)
    np.testing.assert_allclose(found.vs.numpy(), vs, rtol=0, atol=1e-12)
    np.testing.assert_allclose(found.pg_advantages.numpy(), advantages, rtol=0, atol=1e-12)


@pytest.mark.parametrize("correction", ["one_step", "epsilon", "none"])
def test_the_variants_without_traces_heed_lambda(correction: str) -> None:
    # given
    case, lambda_ = make_case(0), 0.6
    values = case.values.detach().numpy()
    _, rewards, discounts, _, mask, _ = (tensor.numpy() for tensor in case.rows)
    expected = values.copy()
    for t in reversed(range(T)):
        for b in np.flatnonzero(mask[t]):  # the lambda-return, backwards from the bootstrap
            after = (1 - lambda_) * values[t + 1, b] + lambda_ * expected[t + 1, b]
            expected[t, b] = rewards[t, b] + GAMMA * discounts[t, b] * after

    # when
    found = corrected_returns(
        log_rhos_of(case),
        case.rows.discounts * GAMMA,
        case.rows.rewards,
        case.values.detach(),
        settings(correction=correction, lambda_=lambda_),
    )

    # then
    np.testing.assert_allclose(found.vs.numpy(), expected[:-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("correction", ["one_step", "epsilon", "none"])
def test_on_policy_all_variants_are_vtrace(correction: str) -> None:
    # given: the behaviour policy is the target policy
    case = make_case(0)
    log_rhos = torch.zeros(T, B, dtype=torch.float64).masked_fill(~case.rows.mask, float("-inf"))
    args = (log_rhos, case.rows.discounts * GAMMA, case.rows.rewards, case.values.detach())

    # when
    vtrace = corrected_returns(*args, settings())
    other = corrected_returns(*args, settings(correction=correction))

    # then
    torch.testing.assert_close(other.vs, vtrace.vs)
    torch.testing.assert_close(other.pg_advantages, vtrace.pg_advantages)


def test_off_policy_they_differ() -> None:
    # given
    case = make_case(0)
    args = (log_rhos_of(case), case.rows.discounts * GAMMA, case.rows.rewards)
    found = {
        c: corrected_returns(*args, case.values.detach(), settings(correction=c))
        for c in ("vtrace", "one_step", "none")
    }

    # then
    assert not torch.allclose(found["vtrace"].vs, found["none"].vs)
    assert torch.equal(found["one_step"].vs, found["none"].vs)
    assert not torch.allclose(found["one_step"].pg_advantages, found["none"].pg_advantages)


def test_epsilon_bounds_the_gradient_of_an_action_that_is_all_but_given_up() -> None:
    # given: an action of probability 1e-9
    gradients = {}
    for correction in ("none", "epsilon"):
        case = make_case(0)
        with torch.no_grad():
            case.logits[0, 0] = torch.tensor([-20.7, 0.0, -30.0])
        case.rows.actions[0, 0] = 0
        p = torch.softmax(case.logits.detach()[0, 0], -1)[0].item()

        # when
        losses, _ = impala_loss(
            ACTION, case.logits, case.values, case.rows, settings(correction=correction), 0.0
        )
        losses.total.backward()  # type: ignore[no-untyped-call]
        assert case.logits.grad is not None
        gradients[correction] = case.logits.grad[0, 0, 0].item()

    # then: d log(p + e) = p / (p + e) d log p
    assert gradients["none"] != 0.0
    assert gradients["epsilon"] / gradients["none"] == pytest.approx(p / (p + 1e-6))


def test_a_return_is_whole_when_its_episode_ends_in_the_unroll() -> None:
    rows = make_case(0).rows
    whole = whole_returns(rows.discounts, rows.mask)
    expected = [
        [True, True, False, False, False, False, False],  # ended after two rows; the next did not
        [True, True, True, True, False, False, False],
        [True] * 7,
        [False] * 7,
    ]
    assert whole.T.tolist() == expected


@pytest.mark.parametrize("correction", ["one_step", "none"])
@pytest.mark.parametrize("baseline_cost", [0.5, 0.0])
@pytest.mark.parametrize("entropy_cost", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_reinforce_learns_from_whole_returns_alone(
    seed: int, entropy_cost: float, baseline_cost: float, correction: str
) -> None:
    # given: without a baseline's cost none is subtracted, and a truncated return ends with 0
    case = make_case(seed)
    s = settings(
        returns="monte_carlo", correction=correction, baseline_cost=baseline_cost, reduction="sum"
    )
    values = case.values.detach().numpy() * (baseline_cost > 0)
    pi = torch.softmax(case.logits.detach(), -1).numpy()
    whole = whole_returns(case.rows.discounts, case.rows.mask).numpy()
    entropies = -(pi * np.log(pi)).sum(-1)
    expected = np.zeros((T, B, A))
    for t, b in np.argwhere(whole):
        advantage = slow_return(case, values, t, b) - values[t, b]
        action = case.rows.actions[t, b].item()
        if correction == "one_step":
            mu = np.exp(case.rows.behaviour_log_probs[t, b].item())
            advantage *= min(pi[t, b, action] / mu, 1.0)
        expected[t, b] = advantage * (pi[t, b] - np.eye(A)[action])
        expected[t, b] += entropy_cost * pi[t, b] * (np.log(pi[t, b]) + entropies[t, b])

    # when
    losses, figures = impala_loss(ACTION, case.logits, case.values, case.rows, s, entropy_cost)
    (gradient,) = torch.autograd.grad(losses.total, [case.logits])

    # then
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=0, atol=1e-12)
    assert losses.entropy.item() == pytest.approx(entropies[whole].mean())
    assert figures.learned_share.item() == pytest.approx(whole.sum() / case.rows.mask.sum().item())
