"""Log-probabilities and entropies of actions in numpy, and the gradients of both.

`common.loss.distributions` computes the same in torch, with gradients by autograd. Outputs have the
features first: [P, N] for N rows.
"""

from abc import ABC, abstractmethod
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.run.spaces import HALF_LOG_2_PI, LOG_STD_LEAST, LOG_STD_MOST, ActionSpec

Floats = NDArray[np.float32]


class ActionStatistics(NamedTuple):
    """What the policy of each row says about itself and the action that was taken there."""

    log_probs: Floats  # [N] log-probability, or log-density, of the action
    entropies: Floats  # [N] in nats; differential if an action is numbers: may be negative
    probabilities: Floats | None = None  # [A, N] if an action is one choice


class Actions(ABC):
    """One kind of actions; it remembers rows from `evaluate` to `backward`."""

    @abstractmethod
    def evaluate(self, outputs: Floats, actions: NDArray[Any]) -> ActionStatistics:
        """The statistics of actions [N, ...] under the network's policy outputs [P, N]."""

    @abstractmethod
    def backward(
        self, of_log_probs: Floats, of_entropies: Floats | None, outputs: Floats, others: Floats
    ) -> None:
        """Brings a loss's gradient from the statistics to what they depend on.

        Args:
          of_log_probs: [N] the gradient by the log-probabilities.
          of_entropies: [N] the gradient by the entropies; None where the loss has none.
          outputs: [P, N] where the gradient by the outputs goes.
          others: [D] where the gradient by the log standard deviations goes; [0] without any.
        """


def actions_of(action: ActionSpec, log_std: Floats | None) -> Actions:
    """What computes with such actions; `log_std` [D] is the parameter, if they are numbers."""
    if log_std is not None:
        return Numbers(log_std, action.bounded)
    if action.kind == "discrete":
        return OneChoice(action.sizes[0])
    return SeveralChoices(action.sizes)


class OneChoice(Actions):
    """A choice among A: outputs are its logits."""

    def __init__(self, size: int) -> None:
        self._numbers = np.arange(size, dtype=np.int32)[:, None]  # [A, 1]

    def evaluate(self, outputs: Floats, actions: NDArray[Any]) -> ActionStatistics:
        """The statistics of choices [N] under logits [A, N]."""
        log_policy = outputs - outputs.max(0)
        policy = np.exp(log_policy)
        total = policy.sum(0)
        policy /= total
        log_policy -= np.log(total)
        chosen = self._numbers == actions  # [A, N]
        entropies = -(policy * log_policy).sum(0)
        self._kept = chosen, policy, log_policy, entropies
        return ActionStatistics((log_policy * chosen).sum(0), entropies, policy)

    def backward(
        self, of_log_probs: Floats, of_entropies: Floats | None, outputs: Floats, others: Floats
    ) -> None:
        """Writes the gradient by the logits."""
        chosen, policy, log_policy, entropies = self._kept
        np.subtract(chosen, policy, out=outputs)
        outputs *= of_log_probs
        if of_entropies is not None:
            log_policy += entropies
            log_policy *= policy
            log_policy *= of_entropies
            outputs -= log_policy


class SeveralChoices(Actions):
    """Choices that are independent of each other: each has its part of the logits."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        ends = np.cumsum((0, *sizes)).tolist()
        self._choices = [
            (OneChoice(size), slice(*part))
            for size, part in zip(sizes, pairwise(ends), strict=True)
        ]

    def evaluate(self, outputs: Floats, actions: NDArray[Any]) -> ActionStatistics:
        """The statistics of choices [N, K] under the logits of them all [P, N]."""
        log_probs, entropies = np.zeros((2, outputs.shape[1]), np.float32)
        for number, (choice, part) in enumerate(self._choices):
            statistics = choice.evaluate(outputs[part], actions[:, number])
            log_probs += statistics.log_probs
            entropies += statistics.entropies
        return ActionStatistics(log_probs, entropies)

    def backward(
        self, of_log_probs: Floats, of_entropies: Floats | None, outputs: Floats, others: Floats
    ) -> None:
        """Writes the gradient by the logits."""
        for choice, part in self._choices:
            choice.backward(of_log_probs, of_entropies, outputs[part], others)


class Numbers(Actions):
    """D numbers drawn from Gaussians, whose means are the outputs: at most 1 if `bounded`."""

    def __init__(self, log_std: Floats, bounded: bool) -> None:
        self._log_std, self._bounded = log_std, bounded

    def evaluate(self, outputs: Floats, actions: NDArray[Any]) -> ActionStatistics:
        """The statistics of numbers [N, D] under outputs [D, N]."""
        means = np.tanh(outputs) if self._bounded else outputs
        log_stds = self._log_std.clip(LOG_STD_LEAST, LOG_STD_MOST)
        inverse_stds = np.exp(-log_stds)[:, None]  # [D, 1]
        distances = actions.T - means  # [D, N], in standard deviations from the next line on
        distances *= inverse_stds
        width = float(log_stds.sum()) + len(log_stds) * HALF_LOG_2_PI
        squares = np.square(distances)
        log_probs = squares.sum(0)
        log_probs *= -0.5
        log_probs -= width
        entropies = np.full(len(log_probs), width + 0.5 * len(log_stds), np.float32)
        self._kept = means, inverse_stds, distances, squares
        return ActionStatistics(log_probs, entropies)

    def backward(
        self, of_log_probs: Floats, of_entropies: Floats | None, outputs: Floats, others: Floats
    ) -> None:
        """Writes the gradients by the outputs, and by the log standard deviations.

        A deviation that is kept from leaving its range has none.
        """
        means, inverse_stds, distances, squares = self._kept
        np.multiply(distances, of_log_probs, out=outputs)
        # An infinite square has a ratio pi/mu of 0, and the update is then not finite, as in torch:
        # it would have no policy loss.
        squares *= of_log_probs
        np.sum(squares, 1, out=others)
        others -= of_log_probs.sum()
        if of_entropies is not None:
            others += of_entropies.sum()
        others *= (self._log_std >= LOG_STD_LEAST) & (self._log_std <= LOG_STD_MOST)
        outputs *= inverse_stds
        if self._bounded:
            outputs *= 1 - np.square(means)
