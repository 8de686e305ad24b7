"""PopArt's statistics as a checkpoint holds them, and what they mean for the baseline's last layer.

With PopArt a value is std * n + mean, where n is what the network says of a task; without it the
network says the value itself, as if the mean were 0 and the deviation 1. `common.loss.popart` has
the statistics while updates are computed.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]
Weights = Mapping[str, Floats]
# By name, float64 [K] each: mean, second, seen and std; empty without PopArt.
Statistics = Mapping[str, Doubles]

# Names of a checkpoint's tensors begin so.
POPART = "popart."
NAMES = ("mean", "second", "seen", "std")
# The baseline's last layer: [K, F] and [K].
WEIGHT, BIAS = "baseline.weight", "baseline.bias"


class Scale(NamedTuple):
    """What each task's normalised values are of: [K] float64, or a number for all."""

    mean: Doubles | float = 0.0
    std: Doubles | float = 1.0


def scale_of(statistics: Statistics) -> Scale:
    """The mean and the deviation among such statistics; 0 and 1 if there are none."""
    return Scale(statistics["mean"], statistics["std"]) if statistics else Scale()


def statistics_in(tensors: Mapping[str, NDArray[Any]], num_tasks: int) -> Statistics:
    """The statistics of K = `num_tasks` tasks among a checkpoint's tensors; empty if it has none.

    Raises KeyError or ValueError with the name of what is missing, or cannot be such.
    """
    if not any(name.startswith(POPART) for name in tensors):
        return {}
    found = {}
    for name in NAMES:
        array = tensors[POPART + name]
        if array.shape != (num_tasks,) or array.dtype != np.float64:
            raise ValueError(f"{POPART}{name}, which is {array.dtype}{list(array.shape)}")
        least = {"mean": -np.inf, "std": np.finfo(np.float32).tiny}.get(name, 0.0)
        if not np.isfinite(array).all() or (array < least).any():
            raise ValueError(f"{POPART}{name}, which no numbers give")
        found[name] = np.array(array, np.float64)
    return found


def begun_anew(statistics: Statistics) -> Statistics:
    """Such statistics for another run: its own targets soon outweigh those of the first one."""
    return {name: of * (name != "seen") for name, of in statistics.items()}


def tensors_of(statistics: Statistics) -> dict[str, NDArray[np.generic]]:
    """The statistics by the names of a checkpoint's tensors."""
    return {POPART + name: of for name, of in statistics.items()}


def refitted(
    weights: Sequence[Weights], was: Statistics, now: Statistics
) -> list[dict[str, Floats]]:
    """Weights that say with the statistics `now` what each of these said with those that were.

    Only the baseline's last layer changes, and nothing where both are the same. Raises ValueError:
    no float32 would say that.
    """
    (mean_was, std_was), (mean, std) = scale_of(was), scale_of(now)
    factor = np.asarray(std_was / std, np.float64)
    shift = np.asarray((mean_was - mean) / std, np.float64)
    if (factor == 1.0).all() and (shift == 0.0).all():
        return [dict(one) for one in weights]
    return [{**one, **_head(one, factor, shift)} for one in weights]


def _head(weights: Weights, factor: Doubles, shift: Doubles) -> dict[str, Floats]:
    with np.errstate(over="ignore", invalid="ignore"):
        weight = (weights[WEIGHT] * factor.reshape(-1, 1)).astype(np.float32)
        bias = (weights[BIAS] * factor + shift).astype(np.float32)
    if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
        raise ValueError(f"{POPART}std, with which values would not be finite")
    return {WEIGHT: weight, BIAS: bias}
