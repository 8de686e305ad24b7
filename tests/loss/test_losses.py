"""The loss against a slow computation in numpy, and what fake rows may not touch."""

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.loss.impala import (
    LEAST_DEVIATION,
    MAX_LOG_RHO,
    Losses,
    LossInput,
    Scales,
    impala_loss,
    shape_rewards,
)
from impala_redis.common.run.groups import LossSettings
from impala_redis.common.run.spaces import ActionSpec, discrete
from impala_redis.common.vtrace import from_importance_weights

Floats = NDArray[np.float64]

T, B, A = 6, 3, 4
ACTION = discrete(A)


class Case(NamedTuple):
    """What impala_loss is given, in float64."""

    logits: Tensor  # [T, B, A]
    values: Tensor  # [T+1, B]
    rows: LossInput


class Slow(NamedTuple):
    """The same loss, and its gradients by hand."""

    total: float
    policy: float
    baseline: float
    entropy: float
    logits_gradient: Floats  # [T, B, A]
    values_gradient: Floats  # [T+1, B]


def make_case(seed: int = 0) -> Case:
    """Random rows; column 0 has a termination at row 1 and column 1 a truncation at row 2."""
    rng = np.random.default_rng(seed)
    discounts = np.ones((T, B))
    mask = np.ones((T, B), np.bool_)
    discounts[1, 0], mask[2, 0] = 0.0, False
    mask[3, 1] = False
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
    """No clip and no scale of rewards unless asked for."""
    return LossSettings(**({"reward_clipping": "none"} | changes))


def slow_loss(case: Case, s: LossSettings, entropy_cost: float) -> Slow:
    """Section 4.2, row by row, with equation (1) as its sum."""
    logits, values = case.logits.detach().numpy(), case.values.detach().numpy()
    actions, rewards, discounts, behaviour, mask, _ = (tensor.numpy() for tensor in case.rows)
    gammas = discounts * s.discounting

    def clip(ratio: float, threshold: float | None) -> float:
        return ratio if threshold is None else min(ratio, threshold)

    pi = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    ratios = np.zeros((T, B))
    for t, b in np.argwhere(mask):
        ratios[t, b] = pi[t, b, actions[t, b]] / np.exp(behaviour[t, b])

    vs = values.copy()
    for t in range(T):
        for b in range(B):
            trace = 1.0
            for k in range(t, T):
                error = rewards[k, b] + gammas[k, b] * values[k + 1, b] - values[k, b]
                vs[t, b] += trace * clip(ratios[k, b], s.clip_rho) * error
                trace *= gammas[k, b] * s.lambda_ * clip(ratios[k, b], s.clip_c)

    plain = rewards + gammas * vs[1:] - values[:-1]
    weights = np.vectorize(lambda ratio: clip(ratio, s.clip_pg_rho))(ratios)
    if s.normalize_advantages:
        plain = plain - np.average(plain, weights=weights)
        plain /= np.average(plain**2, weights=weights) ** 0.5 + LEAST_DEVIATION

    scale = 1.0 / mask.sum() if s.reduction == "mean" else 1.0
    policy = baseline = entropy = 0.0
    logits_gradient, values_gradient = np.zeros((T, B, A)), np.zeros((T + 1, B))
    for t, b in np.argwhere(mask):
        p, action = pi[t, b], actions[t, b]
        advantage = weights[t, b] * plain[t, b]
        row_entropy = -(p * np.log(p)).sum()
        policy -= scale * advantage * np.log(p[action])
        baseline += scale * 0.5 * (vs[t, b] - values[t, b]) ** 2
        entropy += row_entropy
        logits_gradient[t, b] = scale * (
            advantage * (p - np.eye(A)[action]) + entropy_cost * p * (np.log(p) + row_entropy)
        )
        values_gradient[t, b] = scale * s.baseline_cost * (values[t, b] - vs[t, b])
    total = policy + s.baseline_cost * baseline - entropy_cost * scale * entropy
    return Slow(total, policy, baseline, entropy / mask.sum(), logits_gradient, values_gradient)


def loss_and_gradients(
    case: Case, s: LossSettings, entropy_cost: float = 0.01
) -> tuple[Losses, Tensor, Tensor]:
    losses, _ = impala_loss(ACTION, case.logits, case.values, case.rows, s, entropy_cost)
    gradients = torch.autograd.grad(losses.total, [case.logits, case.values])
    return losses, gradients[0], gradients[1]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"reduction": "mean"},
        {"clip_rho": None, "clip_c": None, "clip_pg_rho": None},
        {"clip_rho": 2.5, "clip_c": 0.5, "clip_pg_rho": 1.5, "lambda_": 0.7},
        {"discounting": 0.5, "baseline_cost": 2.0},
        {"baseline_cost": 0.0},
        {"normalize_advantages": True, "clip_pg_rho": 1.5, "reduction": "mean"},
    ],
)
@pytest.mark.parametrize("entropy_cost", [0.0, 0.3])
def test_the_loss_and_its_gradients_equal_the_slow_computation(
    changes: dict[str, Any], entropy_cost: float
) -> None:
    # given
    case, s = make_case(), settings(**changes)
    expected = slow_loss(case, s, entropy_cost)

    # when
    losses, logits_gradient, values_gradient = loss_and_gradients(case, s, entropy_cost)

    # then
    figures = [float(loss.detach()) for loss in losses]
    np.testing.assert_allclose(figures, expected[:4], rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(logits_gradient, expected.logits_gradient, rtol=0, atol=1e-10)
    np.testing.assert_allclose(values_gradient, expected.values_gradient, rtol=0, atol=1e-10)


def test_only_the_total_carries_a_gradient() -> None:
    # given
    case = make_case()

    # when
    losses, figures = impala_loss(ACTION, case.logits, case.values, case.rows, settings(), 0.01)

    # then
    assert losses.total.requires_grad
    given = [figure for figure in figures if figure is not None]
    assert not any(figure.requires_grad for figure in (*losses[1:], *given))
    assert all(figure.shape == () for figure in (*losses, *given[:-1]))
    assert figures.pi_mean is not None and figures.pi_mean.shape == (A,)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_what_stands_in_a_fake_row_changes_nothing(reduction: str) -> None:
    # given: the fake rows hold other logits, actions, rewards and log-probabilities
    s, case, other = settings(reduction=reduction), make_case(), make_case()
    fake = ~other.rows.mask
    with torch.no_grad():
        other.logits[fake] += torch.tensor([50.0, -50.0, 3.0, 0.0], dtype=torch.float64)
    other.rows.actions[fake] = (other.rows.actions[fake] + 1) % A
    other.rows.rewards[fake] = 1000.0
    other.rows.behaviour_log_probs[fake] = -30.0
    other.rows.discounts[fake] = 0.25

    # when
    losses, *gradients = loss_and_gradients(case, s)
    other_losses, *other_gradients = loss_and_gradients(other, s)

    # then
    assert all(map(torch.equal, losses, other_losses))
    assert all(map(torch.equal, gradients, other_gradients))


def test_fake_rows_get_no_gradient() -> None:
    # given
    case = make_case()
    fake = ~case.rows.mask

    # when
    _, logits_gradient, values_gradient = loss_and_gradients(case, settings())

    # then
    assert (logits_gradient[fake] == 0).all()
    assert (values_gradient[:-1][fake] == 0).all()
    assert (logits_gradient[~fake] != 0).any(-1).all()
    assert (values_gradient[:-1][~fake] != 0).all()


def test_the_bootstrap_gets_no_gradient() -> None:
    _, _, values_gradient = loss_and_gradients(make_case(), settings())
    assert (values_gradient[-1] == 0).all()


def test_the_value_of_a_fake_row_is_the_bootstrap_after_a_truncation_and_nothing_after_an_end() -> (
    None
):
    # given
    case, after_end, after_truncation = make_case(), make_case(), make_case()
    with torch.no_grad():
        after_end.values[2, 0] += 7.0
        after_truncation.values[3, 1] += 7.0

    # when
    _, logits_gradient, values_gradient = loss_and_gradients(case, settings())
    _, logits_after_end, values_after_end = loss_and_gradients(after_end, settings())
    _, logits_after_truncation, _ = loss_and_gradients(after_truncation, settings())

    # then
    assert torch.equal(logits_after_end, logits_gradient)
    assert torch.equal(values_after_end, values_gradient)
    changed = (logits_after_truncation != logits_gradient).any(-1)
    assert changed[:3, 1].all()  # the episode that the truncation ends
    assert not changed[3:, 1].any()
    assert not changed[:, [0, 2]].any()


def test_mean_is_sum_over_the_number_of_real_rows() -> None:
    # given
    case = make_case()
    real = int(case.rows.mask.sum())

    # when
    sums, *sum_gradients = loss_and_gradients(case, settings(reduction="sum"))
    means, *mean_gradients = loss_and_gradients(case, settings(reduction="mean"))

    # then
    assert real == T * B - 2
    for summed, mean in zip(sums[:3], means[:3], strict=True):
        assert float(mean.detach()) == pytest.approx(float(summed.detach()) / real, rel=1e-12)
    assert torch.equal(sums.entropy, means.entropy)
    for summed, mean in zip(sum_gradients, mean_gradients, strict=True):
        np.testing.assert_allclose(mean, summed / real, rtol=1e-12, atol=1e-15)


def test_a_batch_of_fake_rows_only_gives_zero_and_no_nan() -> None:
    # given
    case = make_case()
    case.rows.mask[:] = False

    # when
    losses, logits_gradient, values_gradient = loss_and_gradients(case, settings(reduction="mean"))

    # then
    assert [float(loss.detach()) for loss in losses] == [0.0] * 4
    assert (logits_gradient == 0).all()
    assert (values_gradient == 0).all()


REWARDS = [-30.0, -1.0, -0.25, 0.0, 0.25, 1.0, 30.0]


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("none", REWARDS),
        ("abs_one", [-1.0, -1.0, -0.25, 0.0, 0.25, 1.0, 1.0]),
        # tanh 1 = 0.761594, tanh 0.25 = 0.244919; 0.3 below zero and 5 above it
        (
            "soft_asymmetric",
            [-0.3, -0.2284782468, -0.0734755987, 0.0, 1.2245933120, 3.8079707798, 5.0],
        ),
    ],
)
def test_rewards_are_clipped_as_in_the_papers_tables(mode: str, expected: list[float]) -> None:
    # when
    shaped = shape_rewards(
        torch.tensor(REWARDS, dtype=torch.float64), settings(reward_clipping=mode)
    )

    # then
    np.testing.assert_allclose(shaped, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [("none", 0.5), ("abs_one", 0.5), ("soft_asymmetric", 5 * np.tanh(0.5))],
)
def test_rewards_are_scaled_before_they_are_clipped(mode: str, expected: float) -> None:
    # when
    shaped = shape_rewards(
        torch.tensor(5.0, dtype=torch.float64), settings(reward_clipping=mode, reward_scale=0.1)
    )

    # then
    assert float(shaped) == pytest.approx(expected, abs=1e-12)


def test_the_loss_is_made_from_shaped_rewards() -> None:
    # given
    case = make_case()
    shaping = {"reward_clipping": "abs_one", "reward_scale": 0.7}
    shaped = Case(
        case.logits,
        case.values,
        case.rows._replace(rewards=(0.7 * case.rows.rewards).clamp(-1.0, 1.0)),
    )

    # when
    losses, *_ = loss_and_gradients(case, settings(**shaping))
    expected, *_ = loss_and_gradients(shaped, settings())

    # then
    assert all(map(torch.equal, losses, expected))


def test_the_entropy_figure_is_the_mean_over_real_rows_in_nats() -> None:
    # given: uniform policies, and certain ones on the fake rows and on one real row
    case = make_case()
    certain = ~case.rows.mask
    certain[0, 2] = True
    logits = torch.zeros(T, B, A, dtype=torch.float64)
    logits[certain] = torch.tensor([1000.0, 0.0, 0.0, 0.0], dtype=torch.float64)

    # when
    losses, _ = impala_loss(ACTION, logits, case.values, case.rows, settings(), 0.01)

    # then
    real = T * B - 2
    assert float(losses.entropy) == pytest.approx((real - 1) / real * np.log(A), abs=1e-12)


def test_the_entropy_bonus_pushes_towards_the_uniform_policy() -> None:
    # given: no reward and no value, so that nothing but the bonus has a gradient
    case = make_case()
    case.rows.rewards[:] = 0.0
    values = torch.zeros(T + 1, B, dtype=torch.float64, requires_grad=True)

    # when
    losses, logits_gradient, values_gradient = loss_and_gradients(
        case._replace(values=values), settings(), entropy_cost=1.0
    )
    stepped = case.logits.detach() - 0.01 * logits_gradient
    after, _ = impala_loss(ACTION, stepped, values, case.rows, settings(), 1.0)

    # then: down for the likeliest action of every real row, up for the least likely
    mask, logits = case.rows.mask, case.logits.detach()
    likeliest = logits_gradient.gather(-1, logits.argmax(-1, keepdim=True)).squeeze(-1)
    unlikeliest = logits_gradient.gather(-1, logits.argmin(-1, keepdim=True)).squeeze(-1)
    assert (likeliest[mask] > 0).all()
    assert (unlikeliest[mask] < 0).all()
    assert (values_gradient == 0).all()
    assert after.entropy > losses.entropy


def test_the_ratio_figures_are_of_real_rows_only() -> None:
    # given: uniform targets (1/4); behaviour 1/8 on one row and 1/2 on another, else 1/4
    case = make_case()
    behaviour = case.rows.behaviour_log_probs
    behaviour[:] = np.log(1 / 4)
    behaviour[0, 0], behaviour[5, 2] = np.log(1 / 8), np.log(1 / 2)
    behaviour[~case.rows.mask] = -20.0
    logits = torch.zeros(T, B, A, dtype=torch.float64)

    # when
    clips = settings(clip_rho=1.5, clip_c=0.75)
    _, figures = impala_loss(ACTION, logits, case.values, case.rows, clips, 0.01)

    # then
    real = T * B - 2
    assert figures.rho_mean.item() == pytest.approx((real - 2 + 2 + 0.5) / real)
    assert (figures.rho_min.item(), figures.rho_max.item()) == pytest.approx((0.5, 2.0))
    assert figures.rho_clipped_share.item() == pytest.approx(1 / real)
    assert figures.c_clipped_share.item() == pytest.approx((real - 1) / real)
    assert figures.learned_share.item() == 1.0
    assert figures.pi_mean is not None and figures.pi_mean.tolist() == pytest.approx([0.25] * A)


def test_without_a_clip_nothing_is_clipped() -> None:
    case = make_case()
    none = settings(clip_rho=None, clip_c=None)
    _, figures = impala_loss(ACTION, case.logits, case.values, case.rows, none, 0.01)
    assert (figures.rho_clipped_share.item(), figures.c_clipped_share.item()) == (0.0, 0.0)


def test_a_batch_without_a_row_that_counts_has_a_loss_and_no_figures() -> None:
    # given: unrolls in which no episode ends
    case = make_case()
    rows = case.rows._replace(
        mask=torch.ones(T, B, dtype=torch.bool), discounts=torch.ones(T, B, dtype=torch.float64)
    )
    whole = settings(returns="monte_carlo", correction="none", reduction="mean")

    # when
    losses, figures = impala_loss(ACTION, case.logits, case.values, rows, whole, 0.0)
    losses.total.backward()  # type: ignore[no-untyped-call]

    # then
    assert losses.total.item() == 0.0
    assert case.logits.grad is not None and not case.logits.grad.any()
    assert figures.learned_share.item() == 0.0
    assert figures.pi_mean is not None
    assert not any(torch.isfinite(figure).any() for figure in (*figures[:3], figures.pi_mean))


def test_the_ratio_figures_are_not_clipped() -> None:
    # given
    case = make_case()
    case.rows.behaviour_log_probs[:] = np.log(1 / 40)
    logits = torch.zeros(T, B, A, dtype=torch.float64)

    # when
    _, figures = impala_loss(ACTION, logits, case.values, case.rows, settings(), 0.01)

    # then
    np.testing.assert_allclose(
        [float(r) for r in figures[:3] if r is not None], [10.0] * 3, rtol=1e-12
    )


def test_a_ratio_too_small_for_a_float_is_still_the_least() -> None:
    # given: the target policy has all but given up the action of one real row
    case = make_case()
    rows = case.rows._replace(behaviour_log_probs=case.rows.behaviour_log_probs.float())
    rows.actions[0, 0] = 0
    logits = torch.zeros(T, B, A)
    logits[0, 0, 0] = -200.0  # exp(-200) is 0 in float32

    # when
    _, figures = impala_loss(ACTION, logits, case.values.float(), rows, settings(), 0.01)

    # then
    assert float(figures.rho_min) == 0.0


# What is not one choice: the same loss over other log-probabilities and entropies.

D = 2
CHOICES = ActionSpec("multi_discrete", (2, 4, 3))
NUMBERS = ActionSpec("continuous", (D,))


def make_other_case(action: ActionSpec, seed: int = 0) -> Case:
    """`make_case` with actions of another kind."""
    rng = np.random.default_rng(seed + 100)
    case = make_case(seed)
    drawn = [rng.integers(0, size, (T, B)) for size in action.sizes]
    if action.kind == "continuous":
        drawn = list(rng.normal(0.0, 1.5, (D, T, B)))
    outputs = torch.tensor(rng.normal(0.0, 0.7, (T, B, action.num_outputs)), requires_grad=True)
    rows = case.rows._replace(actions=torch.tensor(np.stack(drawn, axis=-1)))
    return Case(outputs, case.values, rows)


def slow_log_prob_and_entropy(action: ActionSpec, outputs: Floats, taken: Any) -> tuple[float, ...]:
    """Log-probability and entropy of one row, from the definitions."""
    log_prob = entropy = 0.0
    if action.kind == "continuous":
        for mean, log_std, number in zip(outputs[:D], outputs[D:], taken, strict=True):
            variance = np.exp(2 * log_std)
            log_prob -= (number - mean) ** 2 / (2 * variance) + np.log(2 * np.pi * variance) / 2
            entropy += np.log(2 * np.pi * np.e * variance) / 2
        return log_prob, entropy
    ends = np.cumsum(action.sizes)
    for start, end, choice in zip(ends - action.sizes, ends, taken, strict=True):
        p = np.exp(outputs[start:end]) / np.exp(outputs[start:end]).sum()
        log_prob += np.log(p[choice])
        entropy -= (p * np.log(p)).sum()
    return log_prob, entropy


def slow_parts(action: ActionSpec, case: Case, outputs: Floats) -> tuple[Floats, Floats]:
    """Log-probabilities and entropies [T, B]."""
    parts = np.zeros((2, T, B))
    for t, b in np.ndindex(T, B):
        taken = case.rows.actions[t, b].numpy()
        parts[:, t, b] = slow_log_prob_and_entropy(action, outputs[t, b], taken)
    return parts[0], parts[1]


@pytest.mark.parametrize("action", [CHOICES, NUMBERS], ids=lambda action: action.kind)
@pytest.mark.parametrize("changes", [{}, {"reduction": "mean"}, {"clip_rho": None, "clip_c": None}])
def test_the_loss_of_other_actions_and_its_gradient_equal_the_slow_computation(
    changes: dict[str, Any], action: ActionSpec
) -> None:
    # given: what a loss of one choice has for advantages depends on log-probabilities alone
    case, s, entropy_cost = make_other_case(action), settings(**changes), 0.3
    outputs = case.logits.detach().numpy().copy()
    log_probs, _ = slow_parts(action, case, outputs)
    log_rhos = torch.tensor(log_probs) - case.rows.behaviour_log_probs
    returns = from_importance_weights(
        log_rhos.masked_fill(~case.rows.mask, float("-inf")),
        case.rows.discounts * s.discounting,
        case.rows.rewards,
        case.values[:-1].detach(),
        case.values[-1].detach(),
        s.clip_rho,
        s.clip_c,
        s.clip_pg_rho,
    )
    mask = case.rows.mask.numpy()
    scale = 1 / mask.sum() if s.reduction == "mean" else 1.0

    def slow_total(outputs: Floats) -> float:
        """The two losses that the outputs are learned by; advantages are no function of them."""
        log_probs, entropies = slow_parts(action, case, outputs)
        weighted = log_probs * returns.pg_advantages.numpy() + entropy_cost * entropies
        return float(-scale * weighted[mask].sum())

    expected = np.zeros_like(outputs)
    for place in np.ndindex(outputs.shape):
        there, step = outputs.copy(), 1e-5
        there[place] += step
        above = slow_total(there)
        there[place] -= 2 * step
        expected[place] = (above - slow_total(there)) / (2 * step)

    # when
    losses, _ = impala_loss(action, case.logits, case.values, case.rows, s, entropy_cost)
    (gradient,) = torch.autograd.grad(losses.total, [case.logits])

    # then
    found = losses.total.item() - s.baseline_cost * losses.baseline.item()
    assert found == pytest.approx(slow_total(outputs), rel=1e-9)
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-7)
    assert (gradient[~case.rows.mask] == 0).all()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"clip_pg_rho": None},
        {"correction": "one_step", "clip_pg_rho": None},
        {"correction": "epsilon"},
        {"correction": "none"},
    ],
)
def test_a_ratio_too_large_for_a_float_leaves_the_loss_finite(changes: dict[str, Any]) -> None:
    # given: a narrow policy meets an action that was a wonder when it was taken; no advantage
    s, values = settings(**changes), torch.zeros(T + 1, B, requires_grad=True)
    outputs = torch.zeros(T, B, 2 * D)
    outputs[0, 0, D:] = -60.0  # log-densities of 118: e^118 is no float32
    outputs.requires_grad_()
    rows = LossInput(
        actions=torch.zeros(T, B, D),
        rewards=torch.zeros(T, B),
        discounts=torch.ones(T, B),
        behaviour_log_probs=torch.full((T, B), -2.0),
        mask=torch.ones(T, B, dtype=torch.bool),
        tasks=torch.zeros(B, dtype=torch.int64),
    )
    rows.behaviour_log_probs[0, 0] = -80.0

    # when
    losses, figures = impala_loss(NUMBERS, outputs, values, rows, s, 0.01)
    losses.total.backward()  # type: ignore[no-untyped-call]

    # then
    assert outputs.grad is not None and outputs.grad.isfinite().all()
    assert values.grad is not None and values.grad.isfinite().all()
    given = [figure for figure in figures if figure is not None]
    assert all(figure.isfinite().all() for figure in (*losses, *given))
    assert figures.rho_max.item() == pytest.approx(np.exp(MAX_LOG_RHO), rel=1e-5)


def test_of_numbers_the_mean_deviation_is_told_and_of_choices_neither_figure() -> None:
    # given
    numbers, choices = make_other_case(NUMBERS), make_other_case(CHOICES)
    with torch.no_grad():
        numbers.logits[..., D:] = torch.tensor([0.5, 1.5], dtype=torch.float64).log()
        numbers.logits[~numbers.rows.mask] = 9.0

    # when
    _, of_numbers = impala_loss(NUMBERS, *numbers, settings(), 0.01)
    _, of_choices = impala_loss(CHOICES, *choices, settings(), 0.01)

    # then
    assert of_numbers.pi_mean is None and of_numbers.policy_std is not None
    assert of_numbers.policy_std.item() == pytest.approx(1.0)
    assert of_choices.pi_mean is None and of_choices.policy_std is None


@pytest.mark.parametrize("changes", [{}, {"normalize_advantages": True}, {"reduction": "mean"}])
def test_a_task_whose_rewards_are_a_thousand_times_larger_pushes_as_hard(
    changes: dict[str, Any],
) -> None:
    # given columns of which one has larger rewards, and values in units of their deviation
    case, s = make_case(), settings(**changes)
    sizes = torch.tensor([1.0, 1000.0, 1.0], dtype=torch.float64)
    told: list[Tensor] = []

    # when
    gradients, targets = [], []
    for scales in (torch.ones_like(sizes), sizes):
        losses, _ = impala_loss(
            ACTION,
            case.logits,
            case.values * scales,
            case.rows,
            s,
            0.01,
            scales=Scales(rewards=scales, values=scales),
            watch=lambda *found: told.extend(found),
        )
        gradients.append(torch.autograd.grad(losses.total, [case.logits, case.values]))
        targets.append(told[-2] / scales)

    # then
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(*targets, rtol=1e-9, atol=1e-12)
    assert not told[0].requires_grad and torch.equal(told[1], case.rows.mask)
