"""The functions of hidden layers: how exact they are, and their slopes."""

import numpy as np
import pytest

from impala_redis.common.mlp.activations import (
    RELU,
    TANH,
    TANH_BY_EXP,
    Activation,
    activation_of,
)

TANHS = {"tanh": TANH, "tanh by exp": TANH_BY_EXP}


@pytest.mark.parametrize("tanh", TANHS.values(), ids=TANHS)
def test_tanh_is_as_exact_as_float32_near_one(tanh: Activation) -> None:
    # given sums from small to far beyond where exp overflows
    sums = np.array([0, 1e-4, 0.1, 0.5, 1, 3, 9, 20, 50, 1e4, 3e38 / 2, np.inf], np.float64)
    sums = np.hstack([sums, -sums])[None]

    # when
    outputs = (tanh.factor * sums).astype(np.float32)
    with np.errstate(over="ignore"):
        tanh.apply(outputs)

    # then
    np.testing.assert_allclose(outputs, np.tanh(sums), rtol=0, atol=1.3e-7)
    assert np.abs(outputs).max() == 1.0


@pytest.mark.parametrize("tanh", TANHS.values(), ids=TANHS)
def test_a_sum_that_is_no_number_stays_none(tanh: Activation) -> None:
    outputs = np.array([[np.nan, 1.0]], np.float32)
    tanh.apply(outputs)
    assert np.isnan(outputs).tolist() == [[True, False]]


def test_the_slope_of_tanh_is_one_less_its_square() -> None:
    gradients, outputs = np.float32([[3, -2]]), np.float32([[0.5, -1.0]])
    activation_of("tanh").multiply_by_slope(gradients, outputs)
    assert gradients.tolist() == [[2.25, 0.0]]


def test_relu_and_its_slope_cut_off_what_is_not_above_zero() -> None:
    # given
    relu = activation_of("relu")
    assert relu is RELU
    outputs, gradients = np.float32([[-3, 0, 2]]), np.float32([[5, 6, 7]])

    # when
    relu.apply(outputs)
    assert outputs.tolist() == [[0, 0, 2]]
    relu.multiply_by_slope(gradients, outputs)

    # then
    assert gradients.tolist() == [[0, 0, 7]]


@pytest.mark.parametrize(
    ("found", "tanh"), [(["X86_V3", "X86_V4"], TANH), (["X86_V3"], TANH_BY_EXP)]
)
def test_tanh_is_computed_by_exp_where_its_fast_instructions_are_missing(
    found: list[str], tanh: Activation, monkeypatch: pytest.MonkeyPatch
) -> None:
    extensions = {"SIMD Extensions": {"found": found}}
    monkeypatch.setattr(np, "show_config", lambda mode: extensions)
    assert activation_of("tanh") is tanh
