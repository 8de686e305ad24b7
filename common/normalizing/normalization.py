"""What the learner knows of observations and rewards, from the batches that it trains on.

An update's own batch is taken in before it: the update, and the actors that get its weights, use
the same figures. Rows of the replay memory were taken in when they were fresh.
"""

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.features import features_of
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.normalizing.moments import Moments, Sample
from impala_redis.common.normalizing.returns import DiscountedReturns
from impala_redis.common.run.architecture import normalized_parts
from impala_redis.common.run.groups import LossSettings
from impala_redis.common.run.spec import RunSpec

Floats = NDArray[np.float32]
Tensors = dict[str, NDArray[np.generic]]
# What a batch brings to each of the running figures that there are, in their order.
Seen = tuple[Sample, ...]

# Names of a checkpoint's tensors begin so.
OBSERVATIONS, REWARDS = "moments.observations.", "moments.rewards."


class Normalization:
    """The running figures of a run, as far as its settings ask for them."""

    def __init__(self, spec: RunSpec, settings: LossSettings) -> None:
        """Begins with none."""
        self._observation = spec.observation
        self._parts = normalized_parts(spec.network, spec.observation)
        self._observations: Moments | None = None
        if spec.normalize_observations:
            self._observations = Moments(spec.statistic_shapes()["normalizer.mean"][0])
        self._rewards = Moments(1) if settings.normalize_rewards else None
        self._returns = DiscountedReturns(settings.discounting)

    def look_at(self, batch: Batch) -> Seen:
        """What the real rows of a batch bring, but for its replayed columns.

        A batch is looked at once: the discounted returns go on from one to the next.
        """
        rows, fresh = batch.rows, slice(batch.replayed, batch.filled)
        seen = []
        if self._observations is not None:
            history, steps = self._observation.history, len(rows.mask)
            there = rows.observations[history : history + steps, fresh][rows.mask[:, fresh]]
            numbers = [
                features_of(self._observation, part, there)
                for part in self._observation.leaves
                if part.name in self._parts
            ]
            seen.append(self._observations.look_at(np.hstack(numbers)))
        if self._rewards is not None:
            returns = self._returns.follow(rows, batch.parts)
            seen.append(self._rewards.look_at(returns[:, None]))
        return tuple(seen)

    def take(self, seen_by_each: Iterable[Seen]) -> None:
        """Takes in what the batches of one update bring, of one learner or of several."""
        for seen in seen_by_each:
            for (_, moments), sample in zip(self._moments(), seen, strict=True):
                moments.take(sample)

    @property
    def reward_factor(self) -> float:
        """What rewards are multiplied by: one divided by the deviation of discounted returns."""
        return 1.0 if self._rewards is None else float(self._rewards.inverse_std[0])

    def statistics(self) -> dict[str, Floats]:
        """What networks normalise observations by, as it travels; empty if they do not."""
        if self._observations is None:
            return {}
        return {
            "normalizer.mean": self._observations.mean.astype(np.float32),
            "normalizer.inverse_std": self._observations.inverse_std.astype(np.float32),
        }

    def tensors(self) -> Tensors:
        """Everything that a resume needs, by the names of a checkpoint's tensors."""
        return {
            prefix + name: tensor
            for prefix, moments in self._moments()
            for name, tensor in moments.tensors().items()
        }

    def restore(self, tensors: Mapping[str, NDArray[np.generic]]) -> None:
        """Goes on with what a checkpoint holds. Figures of rewards that it lacks begin anew.

        Raises KeyError or ValueError with the name of what it lacks or garbles.
        """
        for prefix, moments in self._moments():
            found = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
            if not found and prefix == REWARDS:
                continue
            try:
                moments.restore(found)
            except KeyError as error:
                raise KeyError(f"{prefix}{error.args[0]}") from error
            except ValueError as error:
                raise ValueError(f"{prefix}{error}") from error

    def _moments(self) -> list[tuple[str, Moments]]:
        pairs = [(OBSERVATIONS, self._observations), (REWARDS, self._rewards)]
        return [(prefix, moments) for prefix, moments in pairs if moments is not None]
