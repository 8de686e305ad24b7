"""V-trace against the sum of equation (1), written out term by term from the paper."""

import inspect
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from impala_redis.common.vtrace import VTraceReturns, from_importance_weights

Floats = NDArray[np.float64]
Inputs = dict[str, Floats]

LOG_TWO = float(np.log(2.0))


def equation_one(
    inputs: Inputs,
    rho_bar: float | None,
    c_bar: float | None,
    pg_rho_bar: float | None,
    lambda_: float,
) -> tuple[Floats, Floats]:
    """v_s = V(x_s) + sum over t of gamma^(t-s) c_s .. c_(t-1) delta_t, and section 4.2."""
    rewards, gammas = inputs["rewards"], inputs["discounts"]
    unroll_length, batch_size = rewards.shape
    v = np.concatenate([inputs["values"], inputs["bootstrap_value"][None]])  # [T+1, B] V(x_0..x_T)
    ratio = np.exp(inputs["log_rhos"])
    rho = ratio if rho_bar is None else np.minimum(rho_bar, ratio)
    c = lambda_ * (ratio if c_bar is None else np.minimum(c_bar, ratio))
    pg_rho = ratio if pg_rho_bar is None else np.minimum(pg_rho_bar, ratio)

    vs = np.zeros((unroll_length + 1, batch_size))
    for b in range(batch_size):
        vs[unroll_length, b] = v[unroll_length, b]
        for s in range(unroll_length):
            total = v[s, b]
            for t in range(s, unroll_length):
                product = 1.0
                for i in range(s, t):
                    product *= gammas[i, b] * c[i, b]
                delta = rho[t, b] * (rewards[t, b] + gammas[t, b] * v[t + 1, b] - v[t, b])
                total += product * delta
            vs[s, b] = total
    advantages = pg_rho * (rewards + gammas * vs[1:] - v[:-1])
    return vs[:-1], advantages


def random_inputs(unroll_length: int, batch_size: int, seed: int = 0) -> Inputs:
    """Ratios between about 1/4 and 4, and one discount in five a zero."""
    rng = np.random.default_rng([seed, unroll_length, batch_size])
    shape = (unroll_length, batch_size)
    return {
        "log_rhos": rng.normal(0.0, 0.6, shape),
        "discounts": rng.uniform(0.8, 1.0, shape) * (rng.random(shape) > 0.2),
        "rewards": rng.normal(0.0, 1.0, shape),
        "values": rng.normal(0.0, 1.0, shape),
        "bootstrap_value": rng.normal(0.0, 1.0, batch_size),
    }


def tensors(inputs: Inputs, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
    return {name: torch.tensor(array, dtype=dtype) for name, array in inputs.items()}


def vtrace(inputs: Inputs, **options: float | None) -> tuple[Floats, Floats]:
    """The implementation in float64, as arrays."""
    returns = from_importance_weights(**tensors(inputs), **options)  # type: ignore[arg-type]
    return returns.vs.numpy(), returns.pg_advantages.numpy()


@pytest.mark.parametrize("lambda_", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(
    ("rho_bar", "c_bar", "pg_rho_bar"),
    [
        (None, None, None),
        (0.5, 0.5, 0.5),
        (1.0, 1.0, 1.0),
        (2.5, 1.0, 0.5),
        (1.0, 0.5, 2.5),
        (None, 1.0, 2.5),
        (2.5, None, 1.0),
    ],
)
@pytest.mark.parametrize(("unroll_length", "batch_size"), [(1, 1), (2, 3), (7, 4), (20, 2)])
def test_targets_and_advantages_equal_the_written_out_sum(
    unroll_length: int,
    batch_size: int,
    rho_bar: float | None,
    c_bar: float | None,
    pg_rho_bar: float | None,
    lambda_: float,
) -> None:
    # given
    inputs = random_inputs(unroll_length, batch_size)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.float64, 1e-10)):
        given = tensors(inputs, dtype)
        as_given = {name: tensor.double().numpy() for name, tensor in given.items()}
        expected_vs, expected_advantages = equation_one(
            as_given, rho_bar, c_bar, pg_rho_bar, lambda_
        )

        # when
        vs, advantages = from_importance_weights(
            **given,
            clip_rho_threshold=rho_bar,
            clip_c_threshold=c_bar,
            clip_pg_rho_threshold=pg_rho_bar,
            lambda_=lambda_,
        )

        # then
        assert vs.dtype == advantages.dtype == dtype
        np.testing.assert_allclose(vs.numpy(), expected_vs, rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(
            advantages.numpy(), expected_advantages, rtol=tolerance, atol=tolerance
        )


@pytest.mark.parametrize("threshold", [None, 1.0, 2.5])
def test_on_policy_the_target_is_the_n_step_bellman_target(threshold: float | None) -> None:
    # given
    inputs = random_inputs(6, 3)
    inputs["log_rhos"] = np.zeros((6, 3))

    # when
    vs, _ = vtrace(inputs, clip_rho_threshold=threshold, clip_c_threshold=threshold)

    # then
    target = inputs["bootstrap_value"]
    for s in reversed(range(6)):
        target = inputs["rewards"][s] + inputs["discounts"][s] * target
        np.testing.assert_allclose(vs[s], target, rtol=0, atol=1e-12)


def test_ratios_above_the_thresholds_count_as_the_thresholds() -> None:
    # given
    inputs = random_inputs(5, 3)
    inputs["log_rhos"] = np.full((5, 3), np.log(10.0))
    at_the_threshold = {**inputs, "log_rhos": np.zeros((5, 3))}

    # when
    clipped = vtrace(inputs)
    unclipped = vtrace(
        inputs, clip_rho_threshold=None, clip_c_threshold=None, clip_pg_rho_threshold=None
    )

    # then
    np.testing.assert_array_equal(clipped, vtrace(at_the_threshold))
    assert (np.abs(np.subtract(unclipped, clipped)) > 1e-3).all()


def test_ratios_below_the_thresholds_are_not_clipped() -> None:
    # given
    inputs = random_inputs(5, 3)
    inputs["log_rhos"] = -np.abs(inputs["log_rhos"])

    # when / then
    np.testing.assert_array_equal(
        vtrace(inputs),
        vtrace(inputs, clip_rho_threshold=None, clip_c_threshold=None, clip_pg_rho_threshold=None),
    )


@pytest.mark.parametrize(
    ("option", "expected_v", "expected_advantage"),
    [
        # One step, ratio 2, V = 1, reward 3, bootstrap 10, gamma 0.5: the error is 3 + 5 - 1 = 7.
        ({}, 1 + 7, 7),
        ({"clip_rho_threshold": 1.5}, 1 + 1.5 * 7, 7),
        ({"clip_rho_threshold": None}, 1 + 2 * 7, 7),
        ({"clip_c_threshold": None}, 1 + 7, 7),
        ({"clip_pg_rho_threshold": 0.5}, 1 + 7, 3.5),
        ({"clip_pg_rho_threshold": None}, 1 + 7, 14),
    ],
)
def test_each_threshold_clips_its_own_weight(
    option: dict[str, float | None], expected_v: float, expected_advantage: float
) -> None:
    # given
    inputs = {
        "log_rhos": np.array([[LOG_TWO]]),
        "discounts": np.array([[0.5]]),
        "rewards": np.array([[3.0]]),
        "values": np.array([[1.0]]),
        "bootstrap_value": np.array([10.0]),
    }

    # when
    vs, advantages = vtrace(inputs, **option)

    # then
    assert vs.item() == pytest.approx(expected_v, abs=1e-12)
    assert advantages.item() == pytest.approx(expected_advantage, abs=1e-12)


def test_the_trace_threshold_bounds_what_a_later_error_adds() -> None:
    # given: the only error is at the second step, and it is 1
    inputs = {
        "log_rhos": np.full((2, 1), LOG_TWO),
        "discounts": np.ones((2, 1)),
        "rewards": np.array([[0.0], [1.0]]),
        "values": np.zeros((2, 1)),
        "bootstrap_value": np.zeros(1),
    }

    # when
    first_targets = [
        vtrace(inputs, clip_c_threshold=threshold)[0][0].item() for threshold in (0.25, 1.0, None)
    ]

    # then
    np.testing.assert_allclose(first_targets, [0.25, 1.0, 2.0], rtol=0, atol=1e-12)


def test_with_lambda_zero_the_target_is_the_one_step_target() -> None:
    # given
    inputs = random_inputs(6, 3)
    next_values = np.concatenate([inputs["values"][1:], inputs["bootstrap_value"][None]])

    # when
    vs, _ = vtrace(inputs, lambda_=0.0)

    # then
    errors = inputs["rewards"] + inputs["discounts"] * next_values - inputs["values"]
    rhos = np.minimum(1.0, np.exp(inputs["log_rhos"]))
    np.testing.assert_allclose(vs, inputs["values"] + rhos * errors, rtol=0, atol=1e-12)


def test_nothing_after_a_termination_reaches_the_rows_before_it() -> None:
    # given: the episode ends with row 2
    inputs = random_inputs(6, 3)
    inputs["discounts"][2] = 0.0
    other = {name: array.copy() for name, array in inputs.items()}
    for name in ("log_rhos", "discounts", "rewards", "values"):
        other[name][3:] += 7.0
    other["bootstrap_value"] += 7.0

    # when
    vs, advantages = vtrace(inputs)
    other_vs, other_advantages = vtrace(other)

    # then
    np.testing.assert_array_equal(vs[:3], other_vs[:3])
    np.testing.assert_array_equal(advantages[:3], other_advantages[:3])
    assert (vs[3:] != other_vs[3:]).all()


def test_the_target_of_a_terminating_row_is_its_reward() -> None:
    # given
    inputs = random_inputs(4, 2)
    inputs["log_rhos"][1] = 0.0
    inputs["discounts"][1] = 0.0

    # when
    vs, advantages = vtrace(inputs)

    # then
    np.testing.assert_allclose(vs[1], inputs["rewards"][1], rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        advantages[1], inputs["rewards"][1] - inputs["values"][1], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("threshold", [None, 1.0])
def test_a_fake_row_keeps_its_own_value_and_has_no_advantage(threshold: float | None) -> None:
    # given
    inputs = random_inputs(5, 3)
    inputs["log_rhos"][[1, 3, 4]] = -np.inf

    # when
    vs, advantages = vtrace(
        inputs,
        clip_rho_threshold=threshold,
        clip_c_threshold=threshold,
        clip_pg_rho_threshold=threshold,
    )

    # then
    np.testing.assert_array_equal(vs[[1, 3, 4]], inputs["values"][[1, 3, 4]])
    np.testing.assert_array_equal(advantages[[1, 3, 4]], 0.0)
    assert np.isfinite(vs).all()
    assert np.isfinite(advantages).all()


def test_no_trace_passes_through_a_fake_row() -> None:
    # given: row 2 is fake, though its discount is one as after a truncation
    inputs = random_inputs(6, 3)
    inputs["log_rhos"][2] = -np.inf
    inputs["discounts"][2] = 1.0
    other = {name: array.copy() for name, array in inputs.items()}
    for name in ("rewards", "values"):
        other[name][3:] += 7.0
    other["rewards"][2] += 7.0

    # when
    vs, advantages = vtrace(inputs)
    other_vs, other_advantages = vtrace(other)

    # then
    np.testing.assert_array_equal(vs[:3], other_vs[:3])
    np.testing.assert_array_equal(advantages[:3], other_advantages[:3])


def one_step_episodes() -> Inputs:
    """Every episode is truncated after one step: rows 0, 2, 4 are real and 1, 3, 5 are fake."""
    inputs = random_inputs(6, 3)
    inputs["log_rhos"][0::2] = 0.0
    inputs["log_rhos"][1::2] = -np.inf
    inputs["discounts"][:] = 0.9
    inputs["rewards"][1::2] = 0.0
    return inputs


def test_a_truncated_one_step_episode_is_worth_its_reward_and_its_final_observations_value() -> (
    None
):
    # given
    inputs = one_step_episodes()
    final_values = inputs["values"][1::2]  # of the observation that the fake row holds

    # when
    vs, advantages = vtrace(inputs)

    # then
    expected = inputs["rewards"][0::2] + 0.9 * final_values
    np.testing.assert_allclose(vs[0::2], expected, rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        advantages[0::2], expected - inputs["values"][0::2], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("name", ["rewards", "values", "discounts"])
def test_a_truncated_one_step_episode_does_not_leak_the_next_episodes(name: str) -> None:
    # given: all that follows the first episode's final observation is another
    inputs = one_step_episodes()
    other = {key: array.copy() for key, array in inputs.items()}
    other[name][2:] += 7.0
    other["bootstrap_value"] += 7.0

    # when
    vs, advantages = vtrace(inputs)
    other_vs, other_advantages = vtrace(other)

    # then
    np.testing.assert_array_equal(vs[:2], other_vs[:2])
    np.testing.assert_array_equal(advantages[:2], other_advantages[:2])


def test_an_episode_truncated_at_the_unrolls_end_is_bootstrapped_from_its_final_observation() -> (
    None
):
    # given: the last row is real and truncated; the bootstrap is the final observation's value
    inputs = one_step_episodes()
    inputs = {n: a if n == "bootstrap_value" else a[:5] for n, a in inputs.items()}

    # when
    vs, _ = vtrace(inputs)

    # then
    expected = inputs["rewards"][4] + 0.9 * inputs["bootstrap_value"]
    np.testing.assert_allclose(vs[4], expected, rtol=0, atol=1e-12)


def test_no_gradient_flows_out_and_no_input_is_changed() -> None:
    # given
    given = tensors(random_inputs(4, 2))
    before = {name: tensor.clone() for name, tensor in given.items()}
    for tensor in given.values():
        tensor.requires_grad_()

    # when
    returns = from_importance_weights(**given)

    # then
    assert not returns.vs.requires_grad
    assert not returns.pg_advantages.requires_grad
    for name, tensor in given.items():
        assert torch.equal(tensor.detach(), before[name])


def drop_column(tensor: Tensor) -> Tensor:
    return tensor[..., :-1]


def add_axis(tensor: Tensor) -> Tensor:
    return tensor[None]


@pytest.mark.parametrize("spoil", [drop_column, add_axis])
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("log_rhos", r"log_rhos, discounts, rewards, values must all be \[T, B\]"),
        ("discounts", r"log_rhos, discounts, rewards, values must all be \[T, B\]"),
        ("rewards", r"log_rhos, discounts, rewards, values must all be \[T, B\]"),
        ("values", r"log_rhos, discounts, rewards, values must all be \[T, B\]"),
        ("bootstrap_value", r"bootstrap_value must be \[B\] = \(3,\)"),
    ],
)
def test_a_wrong_shape_is_refused_with_what_was_expected(
    name: str, expected: str, spoil: Callable[[Tensor], Tensor]
) -> None:
    # given
    given = tensors(random_inputs(4, 3))
    given[name] = spoil(given[name])

    # when / then
    with pytest.raises(ValueError, match=expected):
        from_importance_weights(**given)


def test_tensors_that_agree_but_are_not_time_by_batch_are_refused() -> None:
    # given
    given = {
        name: tensor[:, 0]
        for name, tensor in tensors(random_inputs(4, 3)).items()
        if name[0] != "b"
    }

    # when / then
    with pytest.raises(ValueError, match=r"must all be \[T, B\]"):
        from_importance_weights(**given, bootstrap_value=torch.zeros(()))


def test_the_named_tuple_has_the_papers_names() -> None:
    assert VTraceReturns._fields == ("vs", "pg_advantages")
    assert isinstance(from_importance_weights(**tensors(random_inputs(1, 1))), VTraceReturns)


def test_the_signature_is_the_contracts() -> None:
    # when
    parameters = inspect.signature(from_importance_weights).parameters

    # then
    required = inspect.Parameter.empty
    assert {name: parameter.default for name, parameter in parameters.items()} == {
        "log_rhos": required,
        "discounts": required,
        "rewards": required,
        "values": required,
        "bootstrap_value": required,
        "clip_rho_threshold": 1.0,
        "clip_c_threshold": 1.0,
        "clip_pg_rho_threshold": 1.0,
        "lambda_": 1.0,
    }
    assert list(parameters)[:5] == ["log_rhos", "discounts", "rewards", "values", "bootstrap_value"]
