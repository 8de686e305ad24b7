"""Running moments: those of all rows at once, however they come, and never without a number."""

import numpy as np
import pytest

from impala_redis.common.normalizing.moments import Moments


def moments_of(*batches: list[list[float]]) -> Moments:
    moments = Moments(2)
    for rows in batches:
        moments.take(moments.look_at(np.array(rows, np.float32).reshape(-1, 2)))
    return moments


def test_batches_of_any_size_give_what_all_rows_give_at_once() -> None:
    # given numbers far from 0, whose squares float32 would not tell apart
    rows = np.random.default_rng(0).normal([1e4, -3.0], [0.5, 20.0], (1000, 2)).astype(np.float32)
    moments = Moments(2)

    # when
    for part in np.split(rows, [1, 2, 2, 300, 999]):
        moments.take(moments.look_at(part))

    # then
    exact = rows.astype(np.float64)
    assert moments.count == 1000
    np.testing.assert_allclose(moments.mean, exact.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.inverse_std, 1 / exact.std(0), rtol=1e-6)


def test_without_a_row_nothing_is_changed_by_them() -> None:
    moments = moments_of([])
    assert moments.mean.tolist() == [0.0, 0.0]
    assert moments.inverse_std.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("value", [3.4e38, -3.4e38, np.inf, -np.inf])
def test_the_largest_numbers_leave_finite_figures(value: float) -> None:
    moments = moments_of([[value, 0.0]], [[-value, 0.0]])
    assert np.isfinite(moments.mean).all()
    assert moments.inverse_std[0] > 0
    assert moments.inverse_std[1] == pytest.approx(1e4)  # the least variance is 1e-8


def test_a_row_that_is_no_number_is_left_out() -> None:
    moments = moments_of([[1.0, 1.0], [np.nan, 5.0]], [[3.0, 3.0]])
    assert moments.count == 2
    assert moments.mean.tolist() == [2.0, 2.0]


def test_restored_moments_go_on_bit_for_bit() -> None:
    # given
    moments, restored = moments_of([[1.0, 0.1], [0.3, 5.0]]), Moments(2)

    # when
    restored.restore(moments.tensors())
    for one in (moments, restored):
        one.take(one.look_at(np.array([[0.7, 0.9]], np.float32)))

    # then
    for name, tensor in moments.tensors().items():
        np.testing.assert_array_equal(restored.tensors()[name], tensor, strict=True)


@pytest.mark.parametrize(
    ("name", "garbled"),
    [
        ("count", np.array([-1])),
        ("count", np.array([1.5])),
        ("count", np.array([2**63 - 1])),
        ("mean", np.zeros(3)),
        ("mean", np.zeros(2, np.float32)),
        ("mean", np.array([0.0, np.nan])),
        ("squares", np.array([1.0, -1.0])),
    ],
)
def test_what_no_numbers_give_is_refused_by_name(name: str, garbled: np.ndarray) -> None:
    with pytest.raises(ValueError, match=name):
        Moments(2).restore(moments_of().tensors() | {name: garbled})


@pytest.mark.parametrize("absurd", [1e20, -1e20, 3e38])
def test_one_absurd_number_among_many_does_not_make_the_others_equal(absurd: float) -> None:
    # given figures of many rows
    rows = np.random.default_rng(0).normal(size=(5000, 2))
    moments = Moments(2)
    moments.take(moments.look_at(rows))

    # when
    moments.take(moments.look_at(np.array([[absurd, 0.0]])))
    moments.take(moments.look_at(rows))

    # then a deviation of 1 is still one
    assert 0.05 < moments.inverse_std[0] < 1.1
    assert abs(moments.mean[0]) < 1.0


def test_a_scale_that_grows_in_truth_is_followed() -> None:
    moments = Moments(1)
    moments.take(moments.look_at(np.random.default_rng(0).normal(size=(5000, 1))))
    for _ in range(20):
        moments.take(moments.look_at(1e5 * np.random.default_rng(1).normal(size=(5000, 1))))
    assert moments.inverse_std[0] == pytest.approx(1e-5, rel=0.2)
