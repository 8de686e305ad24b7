"""The gradients of some pieces of a batch, one piece after the other, in memory that is kept.

A piece is some columns of a batch, few enough that what is made of them stays in the processor's
cache. Pieces are independent of each other up to the sum of their gradients.
"""

import time
from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.features import Normalizer, features
from impala_redis.common.encoding.masks import penalties
from impala_redis.common.mlp.actions import actions_of
from impala_redis.common.mlp.loss import (
    LossRows,
    Sums,
    Weighting,
    advantages_of,
    impala_loss,
    no_advantages,
    no_sums,
)
from impala_redis.common.mlp.network import PlainNetwork
from impala_redis.common.mlp.parameters import Layout, views, zeros
from impala_redis.common.mlp.products import Products
from impala_redis.common.run.groups import LossSettings
from impala_redis.common.run.spec import RunSpec

Floats = NDArray[np.float32]

# What is made of a piece takes about this many bytes: less costs more calls, and more leaves the
# caches. But products of wide layers are slow with fewer rows than this, whatever they leave.
PIECE_BYTES, LEAST_ROWS = 2_100_000, 2_000
# Pieces of this many sizes have memory that is kept: usually there are one or two.
MOST_SIZES = 3


class Task(NamedTuple):
    """One batch to compute the gradients of, for all workers."""

    observations: NDArray[np.generic]  # [T+1, B, ...]
    counted: NDArray[np.bool_]  # [T, B] the rows that count
    num_counted: int
    rows: LossRows  # [T, B, ...]
    weighting: Weighting
    rhos: Floats  # [T, B] where the ratios pi/mu go


class Worker:
    """Adds up the gradients and the sums of its pieces."""

    def __init__(
        self,
        spec: RunSpec,
        settings: LossSettings,
        layout: Layout,
        products: Products,
        log_std: Floats | None,
        normalizer: Normalizer | None,
    ) -> None:
        """`products` are those of the update; `log_std` [D] is there if an action is numbers.

        So is `normalizer` if observations are normalised; others bring both up to date.
        """
        self._spec, self._settings, self._products = spec, settings, products
        self._normalizer = normalizer
        self._actions = actions_of(spec.action, log_std)
        self._networks: dict[int, PlainNetwork] = {}
        self._of_piece = zeros(layout)
        self._views = views(layout, self._of_piece)
        self._by_log_std = self._views.get("log_std", np.empty(0, np.float32))
        self.gradient = zeros(layout)  # by all parameters
        self.sums = no_sums()
        self.advantages = no_advantages()
        self.forward_s = 0.0  # for network and loss

    def work(self, task: Task, pieces: Iterable[slice]) -> None:
        """Sets gradient, sums and seconds to those of some pieces of the batch."""
        self.gradient.fill(0.0)
        self.sums, self.forward_s = no_sums(), 0.0
        # Numbers that overflow are found in the norm of the gradient.
        with np.errstate(all="ignore"):
            for piece in pieces:
                started = time.perf_counter()
                network = self._network_for(piece.stop - piece.start)
                self.sums = self.sums.plus(self._loss(network, task, piece))
                self.forward_s += time.perf_counter() - started
                network.backward(self._views)
                self.gradient += self._of_piece

    def measure(self, task: Task, pieces: Iterable[slice]) -> None:
        """Sets `advantages` to the sums over some pieces of the batch."""
        self.advantages = no_advantages()
        with np.errstate(all="ignore"):
            for piece in pieces:
                rows = task.rows.columns(piece)
                outputs = self._outputs(self._network_for(piece.stop - piece.start), task, piece)
                found = advantages_of(self._actions, outputs, rows, self._settings)
                self.advantages = self.advantages.plus(found)

    def _outputs(self, network: PlainNetwork, task: Task, piece: slice) -> Floats:
        observation = self._spec.observation
        seen = task.observations[:, piece].reshape(-1, *observation.shape)
        outputs = network.forward(features(observation, seen, self._normalizer))
        if observation.mask:
            outputs[:-1] -= penalties(observation, seen).T
        return outputs

    def _loss(self, network: PlainNetwork, task: Task, piece: slice) -> Sums:
        """The forward pass and the loss, which gives the gradient by the network's outputs."""
        sums, rhos = impala_loss(
            self._actions,
            self._outputs(network, task, piece),
            task.rows.columns(piece),
            self._settings,
            task.weighting,
            network.gradient,
            self._by_log_std,
        )
        task.rhos[:, piece] = rhos
        return sums

    def _network_for(self, columns: int) -> PlainNetwork:
        if columns not in self._networks:
            if len(self._networks) == MOST_SIZES:
                self._networks.clear()
            steps = self._spec.unroll_length
            self._networks[columns] = PlainNetwork(
                self._products, (steps + 1) * columns, steps * columns
            )
        return self._networks[columns]


def bytes_of_a_column(spec: RunSpec) -> int:
    """How much is made of a column: what hidden layers make, and the gradient by the last."""
    numbers = spec.observation.num_features + sum(spec.hidden_sizes) + sum(spec.hidden_sizes[-1:])
    return 4 * (spec.unroll_length + 1) * numbers


def pieces_of(spec: RunSpec, columns: int, workers: int) -> list[slice]:
    """A batch's columns in pieces of nearly one size, as many for each worker if they suffice."""
    rows = spec.unroll_length + 1
    wanted = max(PIECE_BYTES // bytes_of_a_column(spec), LEAST_ROWS // rows, 1)
    rounds = max(round(columns / (wanted * workers)), 1)
    pieces = min(rounds * workers, columns)
    bounds = [columns * number // pieces for number in range(pieces + 1)]
    return [slice(start, stop) for start, stop in pairwise(bounds)]
