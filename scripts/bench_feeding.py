"""Measures what the learner's feeder does with blocks, from memory: microseconds a step, by part.

    .venv/bin/python scripts/bench_feeding.py [--cases atari-fast,atari:16,atari:1024]

An actor plays blocks, which are packed as they are sent; no Redis is asked. A step is one that was
played, the fake one after an episode included, and not one that is drawn again.

*feeder* is the processor time of the feeder's own thread: a block is handed out, read, checked,
counted and copied into batches, and with a replay memory past trajectories are drawn and fresh ones
remembered. *beside idle* and *beside busy* are seconds of the clock without the handing out, while
the main thread waits, and while it computes in Python all the time. *held* is how long that one
waits for the interpreter meanwhile (Linux). *memory* is the most that reading a block allocates at
once, in sizes of an unpacked block.

The parts alone are the body unpacked by Zstandard, the whole block read and checked, its columns
copied into batches, and the replay memory's work; by the clock, the median and what a tenth of the
calls does not exceed. The last line is JSON.
"""

import statistics
import time
import tracemalloc
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

import click
import torch
from rich.table import Table
from threadpoolctl import threadpool_limits

from bench import measuring
from bench.measuring import Figures, Spreads
from bench.recorded import RecordedLink, body_of, recorded
from impala_redis.common.blocks import compression, wire
from impala_redis.common.blocks.trajectory import empty_trajectory
from impala_redis.common.errors import ConfigError
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.feeding.intake import Intake
from impala_redis.common.feeding.replay import make_replay
from impala_redis.common.presets.table import preset
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.workers import process
from impala_redis.workers.options import CONTEXT

CASES = "atari-fast,atari:16,atari:512,atari:1024,cartpole-throughput,masked-cartpole"
PARTS = ("unzip", "unpack", "copy", "replay")
WALLS, SIZES = ("beside idle", "beside busy"), ("wire", "unpacked")
# Each run of a feeder lets so many batches pass before it measures, and measures as many at least.
PASSED = 4
SPINS = 1000  # turns of an empty loop, some 20 us, between two looks for a batch
# What a thread reads of itself here: nanoseconds that it ran, and that it had no core to run on.
SCHEDULED = Path("/proc/thread-self/schedstat")
Call = Callable[[], object]


class Feeding:
    """A feeder at work on recorded blocks, whose batches come back as soon as they are full."""

    def __init__(self, spec: RunSpec, config: Config, messages: list[bytes]) -> None:
        self._steps_of_column, size = spec.unroll_length, config.training.batch_size
        link = cast(LearnerLink, RecordedLink(messages))
        intake = Intake(link, spec, None, learner_version=lambda: 0, reopen=lambda: None)
        empty_rows = partial(empty_trajectory, spec, size)
        replay = make_replay(spec, config)
        self._feeder = Feeder(intake, empty_rows, stage=lambda rows: None, replay=replay)

    def measured(self, seconds: float) -> Figures:
        """The feeder's microseconds a step, beside an idle main thread and beside a busy one."""
        self._feeder.start()
        try:
            self._pass(0.0, busy=False)
            idle, busy = self._pass(seconds, busy=False), self._pass(seconds, busy=True)
        finally:
            self._feeder.close()
        return {
            "feeder_us": idle["feeder_cpu_s"],
            "beside_idle_us": idle["batch_s"],
            "beside_busy_us": busy["batch_s"],
        } | ({"held_us": busy["held_s"]} if SCHEDULED.exists() else {})

    def _pass(self, seconds: float, busy: bool) -> Figures:
        """Lets batches pass: by how much these times grew, in microseconds for each step."""
        steps, batches, began = 0, 0, time.perf_counter()
        before = self._times()
        while time.perf_counter() - began < seconds or batches < PASSED:
            if busy:
                for _ in range(SPINS):
                    pass
            batch = self._feeder.next_batch(timeout_s=0.0 if busy else 1.0)
            if batch is not None:
                batches += 1
                steps += self._steps_of_column * (batch.size - batch.replayed)
                self._feeder.trained(batch)
        return {name: 1e6 * (now - before[name]) / steps for name, now in self._times().items()}

    def _times(self) -> Figures:
        """The feeder's times, and for how long this thread has waited."""
        totals = self._feeder.totals()
        return {"held_s": waited_s()} | {name: totals[name] for name in ("batch_s", "feeder_cpu_s")}


def waited_s() -> float:
    """How long this thread neither ran nor lacked a core up to now; 0 where no system says so."""
    if not SCHEDULED.exists():
        return 0.0
    ran_ns, ready_ns, _ = SCHEDULED.read_text().split()
    return time.perf_counter() - 1e-9 * (int(ran_ns) + int(ready_ns))


class Case:
    """A preset's blocks of some environments, and what is measured with them."""

    def __init__(self, config: Config, blocks: int) -> None:
        self._config, self._spec = config, measuring.spec_of(config)
        self._messages = recorded(self._spec, blocks)
        self._steps = self._spec.unroll_length * self._spec.envs_per_actor  # of a block
        self._rows = wire.unpack_block(self._messages[0], self._spec).trajectory
        self._calls: dict[str, Call] = {"copy": self._copy, "unpack": self._unpack}
        if self._spec.compression != "none":
            self._calls["unzip"] = partial(unzipped, body_of(self._messages[0]))
        self._batch = Batch(empty_trajectory(self._spec, config.training.batch_size))
        self._fresh = self._batch.size - config.replayed_columns
        self._replay = make_replay(self._spec, config)
        if self._replay:
            self._calls["replay"] = self._draw_and_remember
            for _ in range(0, config.training.replay_capacity, self._spec.envs_per_actor):
                self._draw_and_remember()

    # Each of these does the work of one block.

    def _unpack(self) -> None:
        wire.unpack_block(self._messages[0], self._spec)

    def _copy(self) -> None:
        start = 0
        while start < self._spec.envs_per_actor:
            self._batch.clear()
            self._batch.filled = self._batch.size - self._fresh
            start += self._batch.take(self._rows, start, 0)

    def _draw_and_remember(self) -> None:
        assert self._replay
        for _ in range(0, self._spec.envs_per_actor, self._fresh):
            self._batch.clear()
            self._replay.draw_into(self._batch)
            self._batch.filled, self._batch.versions = self._batch.size, [0] * self._batch.size
            self._replay.remember(self._batch)

    def measured(self, seconds: float) -> Figures:
        """Microseconds of a step: of each part alone, and of the feeder."""
        found: Figures = {}
        measuring.side_by_side(self._calls, measuring.WARM_UP_SHARE * seconds)
        for name, taken_s in measuring.timed(self._calls, seconds).items():
            found[f"{name}_us"] = 1e6 * statistics.median(taken_s) / self._steps
            found[f"{name}_p10_us"] = 1e6 * measuring.fastest_tenth(taken_s) / self._steps
        feeding = Feeding(self._spec, self._config, self._messages)
        return found | feeding.measured(seconds) | self._sizes()

    def _sizes(self) -> Figures:
        """Bytes of a step on the wire and unpacked, and the most that reading a block allocates."""
        tracemalloc.start()
        self._unpack()
        _, most_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return {
            "wire_bytes": len(self._messages[0]) / self._steps,
            "unpacked_bytes": self._rows.nbytes / self._steps,
            "memory": most_bytes / self._rows.nbytes,
        }


def unzipped(body: memoryview) -> memoryview:
    """The body's bytes."""
    import zstandard

    return compression.decompressed(body, "zstd", zstandard.frame_content_size(body))


def cases_of(text: str) -> dict[str, Config]:
    """The settings of each case, which is a preset or PRESET:ENVIRONMENTS. Raises ConfigError.

    A batch is as wide as a block where the preset's would be narrower than one.
    """
    found = {}
    for case in text.split(","):
        name, _, envs = case.partition(":")
        config = preset(name)
        if envs:
            if not envs.isdecimal() or not int(envs):
                raise ConfigError(f"the case {case!r} is not PRESET or PRESET:ENVIRONMENTS")
            size = max(int(envs), config.training.batch_size)
            config = config.replace({"envs_per_actor": int(envs), "batch_size": size})
        if config.transport.compression != "none":
            compression.check_installed()
        found[case] = config
    return found


def tables(figures: dict[str, Spreads]) -> list[Table]:
    """Tables of the feeder, and of its parts alone."""
    whole = measuring.table("us a step", "feeder", *WALLS, "held", *SIZES, "memory")
    parts = measuring.table("us a step: median, p10", *PARTS)
    for case, of in figures.items():
        names = ("feeder_us", "beside_idle_us", "beside_busy_us", "held_us")
        times = (of[name].shown(".2f") if name in of else "" for name in names)
        sizes = (of[f"{name}_bytes"].shown() for name in SIZES)
        whole.add_row(case, *times, *sizes, of["memory"].shown(".2f"))
        cells = (
            f"{of[f'{name}_us'].median:.2f}, {of[f'{name}_p10_us'].low:.2f}"
            if f"{name}_us" in of
            else ""
            for name in PARTS
        )
        parts.add_row(case, *cells)
    return [whole, parts]


@click.command(help=__doc__, context_settings=CONTEXT)
@click.option("--cases", default=CASES, help="Each PRESET or PRESET:ENVIRONMENTS, with commas.")
@click.option("--blocks", type=click.IntRange(min=1), default=2, help="Recorded for each case.")
@measuring.timing_options(1.0, "How long each part is measured.")
def main(cases: str, blocks: int, seconds: float, repeat: int, only_json: bool) -> None:
    measuring.begin()
    process.share_the_interpreter()  # as the learner does
    others_cores = measuring.others_cores()
    torch.set_num_threads(1)
    with measuring.one_sentence(), threadpool_limits(limits=1):
        made = {name: Case(config, blocks) for name, config in cases_of(cases).items()}
        runs: dict[str, list[Figures]] = {name: [] for name in made}
        for repetition in range(repeat):
            for name in measuring.taking_turns(list(made), repetition):
                runs[name].append(made[name].measured(seconds))
    figures = {name: measuring.spreads(of) for name, of in runs.items()}
    about = {
        "blocks": blocks,
        "seconds": seconds,
        "repeat": repeat,
        "others_cores": round(others_cores(), 2),
    }
    measuring.show(tables(figures), measuring.as_document(about, figures), only_json)


if __name__ == "__main__":
    main()
