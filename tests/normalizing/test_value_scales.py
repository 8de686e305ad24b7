"""PopArt's statistics in a checkpoint: read with care, and values stay whatever comes or goes."""

import numpy as np
import pytest

from impala_redis.common.normalizing.value_scales import (
    POPART,
    Statistics,
    refitted,
    scale_of,
    statistics_in,
)

K, F = 3, 5


def some_statistics(seed: int) -> Statistics:
    rng = np.random.default_rng(seed)
    mean, std = rng.normal(0, 100, K), rng.uniform(0.1, 1000, K)
    return {"mean": mean, "second": mean**2 + std**2, "seen": np.full(K, 7.0), "std": std}


@pytest.mark.parametrize(
    ("was", "now"),
    [
        (some_statistics(0), some_statistics(1)),
        ({}, some_statistics(1)),
        (some_statistics(0), {}),
    ],
    ids=["others", "switched on", "switched off"],
)
def test_values_stay_the_same_under_other_statistics(was: Statistics, now: Statistics) -> None:
    # given
    rng = np.random.default_rng(2)
    weights = {
        "baseline.weight": rng.normal(size=(K, F)).astype(np.float32),
        "baseline.bias": rng.normal(size=K).astype(np.float32),
        "policy.bias": np.ones(2, np.float32),
    }
    features = rng.normal(size=(64, F))

    # when
    (after,) = refitted([weights], was, now)

    # then
    assert after["policy.bias"] is weights["policy.bias"]
    assert {array.dtype for array in after.values()} == {np.dtype(np.float32)}
    before_values, after_values = (
        scale.std * (features @ one["baseline.weight"].T + one["baseline.bias"]) + scale.mean
        for scale, one in ((scale_of(was), weights), (scale_of(now), after))
    )
    np.testing.assert_allclose(after_values, before_values, rtol=1e-4, atol=1e-4)
    (again,) = refitted([after], now, now)
    assert all(again[name] is array for name, array in after.items())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("mean", np.zeros(K, np.float32)),
        ("second", np.zeros(K + 1)),
        ("mean", np.array([0.0, np.nan, 0.0])),
        ("seen", np.array([1.0, -1.0, 1.0])),
        ("std", np.array([1.0, 0.0, 1.0])),
        ("std", None),
    ],
    ids=str,
)
def test_what_cannot_be_statistics_is_named(name: str, found: np.ndarray | None) -> None:
    # given
    tensors = {POPART + key: array for key, array in some_statistics(0).items()}
    assert set(statistics_in(tensors, K)) == set(some_statistics(0))
    assert statistics_in({"model.baseline.bias": np.zeros(K)}, K) == {}

    # when
    tensors.pop(POPART + name)
    if found is not None:
        tensors[POPART + name] = found

    # then
    with pytest.raises((KeyError, ValueError), match=POPART + name):
        statistics_in(tensors, K)


def test_statistics_that_would_make_values_infinite_are_refused() -> None:
    weights = {"baseline.weight": np.ones((K, F), np.float32), "baseline.bias": np.ones(K, "f4")}
    large = {**some_statistics(0), "std": np.full(K, 1e300)}
    with pytest.raises(ValueError, match="not be finite"):
        refitted([weights], large, {})
