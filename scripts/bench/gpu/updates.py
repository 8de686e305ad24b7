"""Part a of the kit: `Learner.update` from memory, of each network in each precision and size.

Batches go round as they do in a training: one is staged, begins its update, and is free again when
that has ended. A row has the seconds from one update to the next on the host (`period_s`), those of
the call alone (`call_s`), and those of the update's stages by the device's clock (`device_s`). The
engine is a GPU's in the short form on a CPU, too, where it makes no graph.
"""

import gc
import time
import traceback
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from bench.gpu import plan, watching
from bench.gpu.networks import run_of
from bench.gpu.plan import Plan, Row
from bench.gpu.random_rows import fill
from impala_redis.common.devices.graph import capture_for
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning.gpu_engine import GpuEngine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.updates import Updated
from impala_redis.common.run.config import Config, find_setting
from impala_redis.common.run.spec import RunSpec

# The middle size first: where time is short, the others are left out.
BATCH_SIZES = (32, 256, 8)
MODES = ("eager", "graph")
PRECISIONS = find_setting("precision").choices
STAGES = ("transfer_s", "forward_s", "backward_s", "exchange_s", "optimizer_s", "graph_s")
BATCHES = 3  # that go round
MOST_UPDATES = 2000
MEASURED_SHARE = 0.4  # of the time that is left for a case; the rest is for beginning it


class Pace(NamedTuple):
    """How much is done in each case."""

    warm_up: int  # updates before the measurement; both ways of computing are compared after them
    least: int  # updates that are measured, at least
    watched: int  # updates under the profiler, and as many whose waits are counted
    seconds: float  # that are measured, at most


# A GPU's graph is made after the third update.
ON_GPU, SHORT = Pace(6, 5, 5, 0.5), Pace(2, 2, 1, 0.02)


class Case(NamedTuple):
    """One measurement."""

    network: str
    precision: str
    batch_size: int
    mode: str


def cases(on_gpu: bool, networks: Sequence[str]) -> list[Case]:
    """All of them in their order; both modes of one follow each other.

    The short form has one size, and the larger networks in one precision.
    """
    return [
        Case(network, precision, batch_size, mode)
        for batch_size in (BATCH_SIZES if on_gpu else (1,))
        for network in networks
        for precision in (PRECISIONS if on_gpu or network == "mlp" else PRECISIONS[:1])
        for mode in MODES
    ]


class CasesFailed(Exception):
    """At least one case could not be measured."""


def updates(given: Plan) -> None:
    """Measures the cases until the plan's time is over. Raises CasesFailed, after all of them."""
    torch.set_num_threads(1)
    device, waiting = torch.device(given.device), deque(cases(given.on_gpu, given.networks))
    compared, pace = Comparison(), ON_GPU if given.on_gpu else SHORT
    loop: Loop | None = None
    failed: list[Case] = []
    longest_s = 0.0  # a case is not begun that might not end in time
    while waiting and given.left_s > longest_s:
        began = time.monotonic()
        case, seconds = waiting.popleft(), given.left_s / (len(waiting) + 1)
        changes = {"precision": case.precision, "learning_rate": 1e-4}
        changes |= {} if given.on_gpu else {"unroll_length": 2}
        spec, config = run_of(case.network, changes)
        try:
            loop = Loop(case, spec, config, device, pace)
            row = loop.measured(min(pace.seconds, MEASURED_SHARE * seconds), compared)
            if case.batch_size == BATCH_SIZES[0] or not given.on_gpu:
                row |= loop.watched(device, row["period_s"]["median"])
            given.add(row)
        except Exception as error:  # whatever torch raises; other cases may work
            traceback.print_exc()
            failed.append(case)
            given.add({"failed_case": case._asdict(), "why": str(error)[:500]})
        loop = None
        gc.collect()
        if given.on_gpu:
            torch.cuda.empty_cache()
        longest_s = max(longest_s, time.monotonic() - began)
    if waiting:
        given.add({"left_out": [case._asdict() for case in waiting]})
    if failed:
        raise CasesFailed(f"{len(failed)} cases, of which the first is {failed[0]}")


class Comparison:
    """Whether an update in one graph changes the weights as one operation after the other does."""

    def __init__(self) -> None:
        self._case: Case | None = None
        self._step: NDArray[np.float32] = np.zeros(0, np.float32)

    def apart(self, case: Case, step: NDArray[np.float32]) -> float | None:
        """The distance of a graph's step from the eager one's, over the length of that.

        None for the eager one, which is kept.
        """
        if case.mode == "eager":
            self._case, self._step = case, step
            return None
        if self._case != case._replace(mode="eager"):
            return None
        return float(np.linalg.norm(step - self._step) / np.linalg.norm(self._step))


class Loop:
    """A learner and the batches that go round."""

    def __init__(
        self, case: Case, spec: RunSpec, config: Config, device: torch.device, pace: Pace
    ) -> None:
        self._case, self._spec, self._pace = case, spec, pace
        capture = capture_for(device) if case.mode == "graph" else None
        self._engine = GpuEngine(spec, config, device, capture)
        self._learner = Learner(config, self._engine)
        self._begun_with = self._engine.flat()
        self._free: deque[Batch] = deque()
        for seed in range(BATCHES):
            batch = Batch(self._engine.empty_rows(case.batch_size))
            batch.frames = fill(batch.rows, spec, seed)
            self._free.append(batch)
        self._calls_s: list[float] = []
        self._ended: list[Updated] = []

    def measured(self, seconds: float, compared: Comparison) -> Row:
        """The figures of updates that go on for about so long."""
        for _ in range(self._pace.warm_up):
            self.update()
        self._settle()
        apart = compared.apart(self._case, self._engine.flat() - self._begun_with)
        self._calls_s, self._ended, moments = [], [], [time.perf_counter()]
        while len(moments) <= self._pace.least or (
            moments[-1] - moments[0] < seconds and len(moments) <= MOST_UPDATES
        ):
            self.update()
            moments.append(time.perf_counter())
        elapsed_s = self._settle() - moments[0]
        updates = len(moments) - 1
        stages = [stages_of(one) for one in self._ended]
        rows = self._case.batch_size * self._spec.unroll_length
        return self._case._asdict() | {
            "unroll_length": self._spec.unroll_length,
            "updates": updates,
            "frames_per_s": rows * updates / elapsed_s,
            "period_s": spread(np.diff(moments)),
            "call_s": spread(self._calls_s),
            "device_s": spread([sum(of.values()) for of in stages]),
            "stages_s": {name: float(np.median([of[name] for of in stages])) for name in stages[0]},
            "device_share": sum(sum(of.values()) for of in stages) / elapsed_s,
            "is_graph": "graph_s" in stages[0],
            "memory_bytes": self._engine.memory_bytes(),
            "skipped": self._learner.skipped,
            "apart": apart,
        }

    def watched(self, device: torch.device, period_s: float) -> Row:
        """What a few more updates do on the device, and for what they make the host wait."""
        calls = self._pace.watched
        seen = watching.kernels(self.update, calls, device)
        self._settle()
        places = watching.implicit_waits(self.update, calls, device)
        self._settle()
        return {
            "kernels_s": seen.busy_s,
            "kernels": seen.count,
            "kernels_share": seen.busy_s / period_s,
            "waits": seen.waits,
            "implicit_waits": len(places) / calls,
            "implicit_waits_at": sorted(set(places)),
        }

    def update(self) -> None:
        """Stages a batch and begins its update; frees those that have ended."""
        batch = self._free.popleft()
        batch.staged = self._engine.stage(batch.rows)
        began = time.perf_counter()
        ended = self._learner.update(batch)
        self._calls_s.append(time.perf_counter() - began)
        self._note(ended)

    def _settle(self) -> float:
        """Waits for the updates under way; returns when they had ended."""
        self._note(self._learner.settle())
        return time.perf_counter()

    def _note(self, ended: Sequence[Updated]) -> None:
        self._ended += ended
        self._free.extend(one.batch for one in ended)


def stages_of(update: Updated) -> dict[str, float]:
    """The seconds of an update's stages by the device's clock, so far as it has them."""
    return {name: update.figures[name] for name in STAGES if name in update.figures}


def spread(values: Sequence[float] | NDArray[np.float64]) -> dict[str, float]:
    """The median, and what a tenth lies below and above."""
    low, median, high = (float(np.quantile(values, share)) for share in (0.1, 0.5, 0.9))
    return {"median": median, "p10": low, "p90": high}


if __name__ == "__main__":
    plan.run(updates)
