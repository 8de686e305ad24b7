"""The engine of plain networks on a CPU, in numpy: it starts without torch, and is faster.

A batch is computed in pieces (`common.learning.numpy_worker`). With several threads, each takes
every n-th piece; numpy lets go of the interpreter in its large operations.

    caller                          threads k = 1 .. n-1
    makes the rows for the loss
    pieces 0, n, 2n ...             pieces k, k + n, k + 2n ...
    adds up the gradients, in the threads' order: the result is the same each time
    norm, clip, step
"""

import math
import time

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.features import normalizer_of
from impala_redis.common.blocks.trajectory import Trajectory
from impala_redis.common.blocks.weights import Weights
from impala_redis.common.devices.threads import Threads
from impala_redis.common.learning.engine import (
    MOST_NORM,
    Arrays,
    Engine,
    Rates,
    Step,
    averaging_rate,
)
from impala_redis.common.learning.numpy_worker import Task, Worker, pieces_of
from impala_redis.common.mlp.figures import losses, ratios
from impala_redis.common.mlp.loss import (
    Sums,
    Weighting,
    counted_rows,
    no_advantages,
    no_sums,
    prepared,
)
from impala_redis.common.mlp.optimizer import Optimizer
from impala_redis.common.mlp.parameters import layout_of, views
from impala_redis.common.mlp.products import Products
from impala_redis.common.mlp.torch_random import is_rng_state, rng_state
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import LOG_STD_LEAST, LOG_STD_MOST, MOST_ACTIONS
from impala_redis.common.run.spec import RunSpec

Floats = NDArray[np.float32]


class NumpyEngine(Engine):
    """Computes the updates of a plain network: hidden layers alone, no memory, no stack."""

    def __init__(self, spec: RunSpec, config: Config, parameters: Weights, threads: int) -> None:
        """Begins with a copy of the parameters; computes with `threads` processor threads.

        It takes no more than a batch has columns: the others would have none to compute.
        """
        super().__init__(spec)
        threads = min(threads, config.training.batch_size)
        self.where = "cpu, by numpy"
        self.layout = layout_of(spec.parameter_shapes())
        self._config = config
        self._optimizer = Optimizer(self.layout, config.optimizer)
        self._parameters = views(self.layout, self._optimizer.flat)
        for name, array in self._parameters.items():
            array[...] = parameters[name]
        self._log_std = self._parameters.get("log_std")  # [D] if an action is numbers
        self._products = Products(spec, self._parameters)
        shapes = spec.statistic_shapes()
        self._statistics = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self._normalizer = normalizer_of(spec, self._statistics)
        if self._normalizer is not None:
            self._normalizer.inverse_std.fill(1.0)
        own = (self._products, self._log_std, self._normalizer)
        self._workers = [Worker(spec, config.loss, self.layout, *own) for _ in range(threads)]
        self._threads = Threads(threads)
        self._averaged = self._optimizer.flat.copy()
        # Nothing is drawn from it: a run that goes on in torch begins there as in torch alone.
        self._random_state = rng_state(config.training.seed)

    @property
    def steps(self) -> int:  # type: ignore[override]
        """How many steps the optimizer has taken."""
        return self._optimizer.steps

    def step(self, rows: Trajectory, rates: Rates) -> Step:
        """Takes one step on a batch of any number of columns."""
        moments = [time.perf_counter()]
        with np.errstate(all="ignore"):
            task = self._task(rows, rates)
            moments.append(time.perf_counter())
            sums = self._compute(task)
            moments.append(time.perf_counter())
            figures = self._figures(sums, task, rows.mask)
            norm = self._optimizer.step(rates.learning_rate)
            if self._log_std is not None:
                # Outside their range they have no gradient, so no other update would.
                np.clip(self._log_std, LOG_STD_LEAST, LOG_STD_MOST, out=self._log_std)
            if math.isfinite(norm):
                rate = np.float32(averaging_rate(self.steps))
                self._averaged += (self._optimizer.flat - self._averaged) * rate
        moments.append(time.perf_counter())
        prepared_at, computed_at, stepped_at = (moment - moments[0] for moment in moments[1:])
        forward_s = self._workers[0].forward_s
        stages_s = {
            "transfer_s": prepared_at,
            "forward_s": forward_s,
            "backward_s": computed_at - prepared_at - forward_s,
            "optimizer_s": stepped_at - computed_at,
        }
        return Step({**figures, "grad_norm": norm}, stages_s, math.isfinite(norm))

    def allows_step(self, rows: Trajectory, rates: Rates) -> bool:
        """Whether the gradient of such rows is finite, and far from not being so."""
        with np.errstate(all="ignore"):
            self._compute(self._task(rows, rates))
            return self._optimizer.norm() <= MOST_NORM

    def load_statistics(self, statistics: Arrays) -> None:
        """Takes over the figures by which observations are normalised."""
        for name, array in statistics.items():
            self._statistics[name][...] = array

    def flat(self) -> Floats:
        """A copy of all parameters as one vector, cut as `layout` says."""
        copy: Floats = self._optimizer.flat.copy()
        return copy

    def averaged(self) -> Floats:
        """A copy of the parameters' mean over the last updates."""
        copy: Floats = self._averaged.copy()
        return copy

    def slots(self) -> Arrays:
        """Copies of the optimizer's state."""
        return {name: view.copy() for name, view in self._optimizer.state().items()}

    def load(self, parameters: Arrays, averaged: Arrays, slots: Arrays, steps: int) -> None:
        """Takes over the state of another engine; all of it fits."""
        mean, state = views(self.layout, self._averaged), self._optimizer.state()
        for own, arrays in ((self._parameters, parameters), (mean, averaged), (state, slots)):
            for name, view in own.items():
                view[...] = arrays[name]
        self._optimizer.steps = steps

    def set_rmsprop_epsilon(self, epsilon: float) -> None:
        """Changes it for the steps from now on."""
        self._optimizer.rmsprop_epsilon = epsilon

    @property
    def random_state(self) -> NDArray[np.uint8]:
        """What the state of torch's generator would be."""
        return self._random_state

    @random_state.setter
    def random_state(self, state: NDArray[np.uint8]) -> None:
        if not is_rng_state(state):
            raise RuntimeError("rng.torch, which is no state of torch's generator")
        self._random_state = state.copy()

    def _task(self, rows: Trajectory, rates: Rates) -> Task:
        """What the workers compute of a batch."""
        settings = self._config.loss
        counted = counted_rows(rows.discounts, rows.mask, settings)
        count = int(np.count_nonzero(counted))
        scale = 1.0 / max(count, 1) if settings.reduction == "mean" else 1.0
        return Task(
            observations=rows.observations,
            counted=counted,
            num_counted=count,
            rows=prepared(
                rows.actions,
                rows.rewards,
                rows.discounts,
                rows.behaviour_log_probs,
                counted,
                settings,
                rates.reward_factor,
            ),
            weighting=Weighting(scale, rates.entropy_cost),
            rhos=np.empty(counted.shape, np.float32),
        )

    def _compute(self, task: Task) -> Sums:
        """Leaves the gradient with the optimizer; returns the sums over all rows."""
        self._products.refresh()
        workers = self._workers
        pieces = pieces_of(self.spec, task.rhos.shape[1], len(workers))
        if self._config.loss.normalize_advantages and len(pieces) > 1:
            task = self._with_advantages(task, pieces)

        def job(k: int) -> None:
            workers[k].work(task, pieces[k :: len(workers)])

        self._threads.do(job)
        sums = no_sums()
        self._optimizer.gradient.fill(0.0)
        for worker in workers:
            self._optimizer.gradient += worker.gradient
            sums = sums.plus(worker.sums)
        return sums

    def _with_advantages(self, task: Task, pieces: list[slice]) -> Task:
        """The task with what normalises the advantages, by a forward pass over all pieces."""
        workers = self._workers
        self._threads.do(lambda k: workers[k].measure(task, pieces[k :: len(workers)]))
        found = no_advantages()
        for worker in workers:
            found = found.plus(worker.advantages)
        return task._replace(weighting=task.weighting._replace(advantages=found))

    def _figures(self, sums: Sums, task: Task, real: NDArray[np.bool_]) -> dict[str, float]:
        """The figures of an update by name, but for the norm of its gradient."""
        settings, count = self._config.loss, np.float64(task.num_counted)
        figures = losses(sums, task.num_counted, settings, task.weighting)
        figures |= ratios(task.rhos, task.counted, real, settings)
        if isinstance(sums.probabilities, np.ndarray) and len(sums.probabilities) <= MOST_ACTIONS:
            shares = (sums.probabilities / count).tolist()
            figures |= {f"pi_mean_{a}": share for a, share in enumerate(shares)}
        if self._log_std is not None:
            stds = np.exp(self._log_std.clip(LOG_STD_LEAST, LOG_STD_MOST))
            figures["policy_std"] = float(stds.mean()) if count else math.nan
        return figures
