"""The state of training (parameters, optimizer, counters) and one update. No input or output.

What an update computes is an engine's (`common.learning.engine`).
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from impala_redis.common.blocks.weights import ArrivingWeights, VersionedWeights, Weights
from impala_redis.common.errors import NotFinite
from impala_redis.common.feeding.batch import Batch, Part, one_plain_column, only
from impala_redis.common.feeding.task_windows import counts_in, window_of
from impala_redis.common.learning import states
from impala_redis.common.learning.engine import Arrays, Engine, Floats, Rates
from impala_redis.common.learning.updates import (
    Agreed,
    Share,
    UnderWay,
    Updated,
    blocks_of,
    columns_of,
    frames_of,
    task_frames_of,
)
from impala_redis.common.normalizing import value_scales
from impala_redis.common.normalizing.normalization import Normalization, Seen
from impala_redis.common.records.checkpoint import Checkpoint, Tensors
from impala_redis.common.run.config import Config
from impala_redis.common.settings.evolving import Copied
from impala_redis.common.tasks.scoring import score

# Tries at most to find the blocks that allow a finite step.
MOST_TRIES = 32
# Where columns come from that no actor has just sent.
REPLAYED = ("", -1)


class Learner:
    """The state of training, from the first update to the last, across resumes."""

    def __init__(self, config: Config, engine: Engine) -> None:
        self._config, self.engine = config, engine
        self.normalization = Normalization(engine.spec, config.loss)
        self._num_tasks = engine.spec.num_tasks
        self.window = window_of(self._num_tasks)
        self.evolving = config.evolving()  # the settings that a population changes, as they are
        self.version = 0  # of the weights: grows by one with every update, never goes back
        self.updates = 0
        self.frames = 0  # environment steps trained on
        self.task_frames = np.zeros(self._num_tasks, np.int64)  # the same by task
        self.skipped = 0  # updates whose loss or gradients were not finite, since the start
        self.faults_in_a_row = 0  # those that were the network's fault
        self._at_fault = False
        self._under_way: deque[UnderWay] = deque()
        self.device_s = 0.0  # in which the device had an update to compute, since the start

    def share_of(self, batch: Batch) -> Share:
        """What a batch brings beside its gradient; each batch is asked for it once."""
        return self._share_of(batch, self.normalization.look_at(batch))

    def _share_of(self, batch: Batch, seen: Seen = ()) -> Share:
        return Share(batch.frames, batch.blocks, seen, batch.task_frames(self._num_tasks))

    def update(self, batch: Batch, shares: Sequence[Share] | None = None) -> list[Updated]:
        """Begins an update with a batch; returns those that have ended, the oldest first.

        On a CPU that is this one, on a GPU the one before. What the rates are made from, the
        counters of updates and frames, counts what has begun. Where several learners make the
        update, `shares` are those of all of them, this one's too. Raises DeviceFull.
        """
        shares = [self.share_of(batch)] if shares is None else shares
        self.normalization.take(share.seen for share in shares)
        self.engine.load_statistics(self.normalization.statistics())
        rates = self._rates()
        result = self.engine.begin(batch.rows, batch.staged, rates)
        self.version += 1
        self.updates += 1
        self.frames += frames_of(shares)
        self.task_frames += task_frames_of(shares, self._num_tasks)
        self._under_way.append(UnderWay(batch, shares, self.version, rates, result))
        return self._ended(self.engine.ahead)

    def settle(self) -> list[Updated]:
        """Waits for the updates under way; returns them, the oldest first. Raises DeviceFull."""
        return self._ended(0)

    def _ended(self, ahead: int) -> list[Updated]:
        """The updates that were begun before the last `ahead` ones."""
        ended = []
        while len(self._under_way) > ahead:
            ended.append(self._end(self._under_way.popleft()))
        return ended

    def _end(self, update: UnderWay) -> Updated:
        """Takes in what an update has come to.

        If no finite step can be made of all columns, it is made of the blocks that allow one, and
        the batch then knows which it left out.
        """
        batch, shares, rates = update.batch, update.shares, update.rates
        figures, stages_s, taken = update.result()
        if not taken:
            fit = self._leave_out_unfit(batch, rates)
            found = self._agree(self._share_of(batch), bool(fit))
            if found.any_fit:
                rows = only(batch.rows, columns_of(fit))
                figures, _, taken = self.engine.step(rows, rates)
            self.frames += frames_of(found.shares) - frames_of(shares)
            self.task_frames += task_frames_of(found.shares, self._num_tasks)
            self.task_frames -= task_frames_of(shares, self._num_tasks)
            shares = found.shares
        self.device_s += sum(stages_s.values())
        self.skipped += not taken
        self.faults_in_a_row = 0 if taken else self.faults_in_a_row + self._at_fault
        self.window.add(blocks_of(shares), time.monotonic())
        used = {"learning_rate": rates.learning_rate}
        if self._config.loss.normalize_rewards:
            used["reward_std"] = 1.0 / rates.reward_factor
        return Updated(batch, update.version, {**figures, **used, **stages_s})

    def _agree(self, share: Share, any_fit: bool) -> Agreed:
        """What the learners of an update have left of it, after one that was not finite."""
        return Agreed([share], any_fit)

    def _rates(self) -> Rates:
        """What the schedules and the running figures say now."""
        optimizer, loss, now = self._config.optimizer, self._config.loss, self.evolving.now
        return Rates(
            self._scheduled(now["learning_rate"], optimizer.learning_rate_schedule),
            self._scheduled(now["entropy_cost"], loss.entropy_schedule),
            self.normalization.reward_factor,
        )

    def _leave_out_unfit(self, batch: Batch, rates: Rates) -> list[Part]:
        """The parts that allow a finite step; the batch leaves the others out.

        Without any, the network is at fault if a plain column allows none either. Whatever blocks
        say else could be the work of a stranger.
        """
        replayed = [Part(REPLAYED, slice(0, batch.replayed))] if batch.replayed else []
        fit = self._fit_parts(batch, [*replayed, *batch.parts], rates)
        batch.leave_out([part for part in batch.parts if part not in fit])
        plain = one_plain_column(batch.rows)
        self._at_fault = not fit and not self.engine.allows_step(plain, rates)
        return fit

    def _fit_parts(self, batch: Batch, parts: list[Part], rates: Rates) -> list[Part]:
        """The parts of which a finite step can be made, together, too: looked for by halves.

        What it would take too long to find is left out with the others.
        """
        fit, unknown = list[Part](), [parts] if parts else []
        for _ in range(MOST_TRIES):
            if not unknown:
                break
            some = unknown.pop()
            if self.engine.allows_step(only(batch.rows, columns_of(some)), rates):
                fit += some
            elif len(some) > 1:
                half = len(some) // 2
                unknown += [some[half:], some[:half]]
        return fit

    @property
    def score(self) -> float | None:
        """The mean score over the tasks; None until each has a mean return, and without tasks."""
        return score(self.engine.spec.tasks, self.window.mean_returns)

    def totals(self) -> dict[str, float]:
        """Sums since the start, from whose growth figures are made."""
        return {"frames": self.frames, "updates": self.updates, "device_s": self.device_s}

    def weights(self) -> Weights:
        """A copy of the network's parameters on the host, and of the statistics behind them.

        Raises NotFinite: such weights must reach neither actors nor a checkpoint.
        """
        return {**self._finite(self.engine.flat()), **self._begin_statistics()()}

    def versioned_weights(self) -> VersionedWeights:
        """Such a copy with its version, to publish; it may still be on its way from a GPU.

        Whoever looks at it first waits, and gets NotFinite raised if it is not.
        """
        arriving, statistics = self.engine.begin_flat(), self._begin_statistics()
        return VersionedWeights(
            self.version,
            ArrivingWeights(lambda: {**self._finite(arriving()), **statistics()}),
            min(self.frames / self._config.training.total_frames, 1.0),
        )

    def _begin_statistics(self) -> Callable[[], Arrays]:
        """The same for all that travels and is no parameter, by `NetworkSpec.statistic_shapes`."""
        figures, of_network = self.normalization.statistics(), self.engine.begin_statistics()
        return lambda: {**figures, **of_network()}

    def _finite(self, flat: Floats) -> Weights:
        """The parameters by name. Raises NotFinite."""
        weights = {name: flat[part].reshape(shape) for name, part, shape in self.engine.layout}
        if not np.isfinite(flat).all():
            names = (name for name, array in weights.items() if not np.isfinite(array).all())
            raise NotFinite(
                f"the network's {next(names)} is not finite any more; lower --learning-rate, then "
                "go on from the last checkpoint with --resume"
            )
        return weights

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Everything a resume needs, as tensors and facts: the same of either engine.

        No update may be under way. Raises NotFinite.
        """
        assert not self._under_way, "an update is under way"
        tensors: Tensors = {f"model.{name}": value for name, value in self.weights().items()}
        averaged = self.engine.averaged()
        for name, part, shape in self.engine.layout:
            tensors[f"averaged.{name}"] = averaged[part].reshape(shape)
        tensors |= {f"optimizer.{name}": value for name, value in self.engine.slots().items()}
        tensors |= self.normalization.tensors()
        tensors |= value_scales.tensors_of(self.engine.popart())
        tensors["rng.torch"] = self.engine.random_state
        facts = {
            "version": self.version,
            "updates": self.updates,
            "frames": self.frames,
            "episodes": self.window.episodes,
            "returns": list(self.window.returns),  # those of the mean; none while it is unknown
            "optimizer_steps": self.engine.steps,
            **self.evolving.facts(),
        }
        if self._num_tasks > 1:
            facts["task_frames"] = self.task_frames.tolist()
        return tensors, facts

    def restore(self, checkpoint: Checkpoint) -> None:
        """Goes on exactly where the checkpoint was made. Raises CheckpointError if it cannot."""
        facts = checkpoint.facts
        with checkpoint.being_read():
            self._checked(checkpoint)()
            if (random_state := checkpoint.tensors["rng.torch"]).dtype != np.uint8:
                raise TypeError("rng.torch")
            self.engine.random_state = np.asarray(random_state, np.uint8)
            self.version, self.updates = facts["version"], facts["updates"]
            self.frames = facts["frames"]
            self.window = window_of(self._num_tasks, facts["returns"], facts["episodes"])
            by_task = facts["task_frames"] if self._num_tasks > 1 else [self.frames]
            self.task_frames = counts_in(by_task, self._num_tasks)
            self.evolving.restore(facts)
        self._use_evolved()

    def adopt(self, checkpoint: Checkpoint, copied: Copied) -> None:
        """Goes on with the state of another member of a population, and with changed settings.

        Weights, optimizer and all running figures are the other's; frames, updates and random
        numbers stay. Another network has played the episodes of the window, so it begins anew. By
        the new version all blocks from before are too old where there is a bound. No update may be
        under way. Raises CheckpointError: the state will not do, and nothing has changed.
        """
        assert not self._under_way, "an update is under way"
        with checkpoint.being_read():
            take = self._checked(checkpoint)
            self.evolving.check(copied.values)
            take()
            self.evolving.take(copied)
        self._use_evolved()
        self.window = window_of(self._num_tasks, (), self.window.episodes)
        self.version += 1 + (self._config.transport.max_policy_lag or 0)

    def _checked(self, checkpoint: Checkpoint) -> Callable[[], None]:
        return states.checked(checkpoint, self.engine, self.normalization, self._config.loss)

    def _use_evolved(self) -> None:
        """Gives the engine what the rates of an update do not carry."""
        if epsilon := self.evolving.now.get("rmsprop_epsilon"):
            self.engine.set_rmsprop_epsilon(epsilon)

    def begin_from(self, checkpoint: Checkpoint) -> None:
        """Begins with the weights and statistics of another run: their mean if there is one.

        Counters, optimizer and schedules begin anew. Raises CheckpointError: they do not fit.
        """
        with checkpoint.being_read():
            states.begin_from(checkpoint, self.engine, self.normalization)

    def _scheduled(self, value: float, schedule: str) -> float:
        return scheduled(value, schedule, self.frames, self._config.training.total_frames)


def scheduled(value: float, schedule: str, frames: int, total_frames: int) -> float:
    """`value` at this point of a schedule: "constant", or "linear" to 0 at `total_frames`."""
    if schedule == "constant":
        return value
    return value * max(0.0, 1.0 - frames / total_frames)
