"""Whom a member of a population copies, and how it changes the settings that it has copied.

Population-based training as in the IMPALA paper (Espeholt et al. 2018, appendix F), without a
controller: each member compares itself with one other at random.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from impala_redis.common.population.member import Member

# How much better another must be, as a share of the scale of what is compared: the paper's 5 points
# of 100 for scores.
THRESHOLD = 0.05
# A setting is multiplied by this, or divided, each with that probability.
FACTOR, PROBABILITY = 1.2, 0.33

Outcome = Literal["nobody", "not better", "better"]


def rivals(mine: Member, others: Sequence[Member], now_unix_s: float) -> list[Member]:
    """The others that this member may be compared with: alive, ready, and of the same kind."""
    return [
        other
        for other in others
        if other.name != mine.name
        and other.fitness is not None
        and other.fingerprint == mine.fingerprint
        and other.measure == mine.measure
        and other.values.keys() == mine.values.keys()
        and not other.is_stale(now_unix_s)
    ]


def exploit(
    mine: Member,
    others: Sequence[Member],
    rng: np.random.Generator,
    threshold: float = THRESHOLD,
) -> Member | None:
    """One of the others, chosen at random, if it is so much better that it should be copied.

    Args:
      mine: this member, whose fitness is known.
      others: its rivals, with which it may be compared.
      rng: draws one of them; what the others have reached does not matter.
      threshold: how much better that one must be, as a share of the scale. The scale of scores is
        1, where the reference is; that of returns, which may have any unit, the larger of both.
    """
    if not others or mine.fitness is None:
        return None
    other = others[int(rng.integers(len(others)))]
    if other.fitness is None:
        return None
    returns = mine.measure == "return"
    scale = max(abs(mine.fitness), abs(other.fitness)) if returns else 1.0
    return other if other.fitness - mine.fitness > threshold * scale else None


def explore(values: Mapping[str, float], rng: np.random.Generator) -> dict[str, float]:
    """The settings, each of which is multiplied by 1.2 or divided by it, with 33 % each."""
    factors = rng.choice([FACTOR, 1 / FACTOR, 1.0], len(values), p=_PROBABILITIES)
    return {
        key: value * float(factor)
        for (key, value), factor in zip(values.items(), factors, strict=True)
    }


_PROBABILITIES = [PROBABILITY, PROBABILITY, 1 - 2 * PROBABILITY]
