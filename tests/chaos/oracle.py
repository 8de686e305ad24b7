"""What must hold whatever happens: the books, watched all the time; the logs, read at the end."""

import os
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from chaos.system import QUEUE_BLOCKS, RUN
from impala_redis.common.errors import ImpalaError
from impala_redis.common.transport.monitor import MonitorLink, residual

LOOK_EVERY_S = 0.1
SAMPLE_EVERY_S = 2.0
# Memory is judged once a process has been up for this long, and has this much behind it.
WARM_UP_S, LEAST_LIFE_S = 30.0, 120.0
# Where a block can be that an actor made.
ACTOR_PARTS = ("accepted", "shed_local", "pending_local", "push_unknown", "left_over")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class BooksWatch:
    """Reads the books ten times a second on a thread of its own, and notes what must not be.

    A server that does not answer is no offence; what it says when it does is held against I1 (the
    residual), I2 (the actors' own books), I4 (the bound) and I7 (the weights' version).
    """

    def __init__(self, url: str, garbage: Callable[[], int]) -> None:
        self._link = MonitorLink(url, RUN, "oracle")
        self._garbage = garbage
        self.offences: list[str] = []
        self.readings = 0
        self.accepted: dict[str, int] = {}  # by actor, as last read
        self.last: dict[str, Any] | None = None
        self.by_generation: dict[str, dict[str, Any]] = {}  # the last reading of each
        self._version = -1
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="oracle", daemon=True)
        self._thread.start()

    def consumed(self) -> tuple[str, int]:
        """Generation and consumed blocks, as last read."""
        last = self.last
        return (last["generation"], last["consumed"]) if last else ("", 0)

    def look(self) -> None:
        """One reading, held against what must hold."""
        try:
            books, learner = self._link.read_books(), self._link.read_learner()
            actors = self._link.read_actors()
        except ImpalaError:
            return
        self.readings += 1
        if left := residual(books):
            self._offend(f"the books leave {left} blocks unexplained: {books}")
        if books["queued"] > QUEUE_BLOCKS + self._garbage():
            self._offend(f"the list holds {books['queued']} blocks, its bound is {QUEUE_BLOCKS}")
        generation, version = books["generation"], learner["weights_version"]
        if self.last and generation == self.last["generation"] and -1 < version < self._version:
            self._offend(f"the weights went back from version {self._version} to {version}")
        self._version = version
        self.last = self.by_generation[generation] = books
        if self.totals()["foreign"] > self._garbage():
            self._offend(f"blocks came from nowhere: {books}")
        for name, actor in actors.items():
            lost = int(actor["generated"]) - sum(int(actor[part]) for part in ACTOR_PARTS)
            if lost:
                self._offend(f"the actor {name} leaves {lost} blocks unexplained: {actor}")
            self.accepted[name] = int(actor["accepted"])

    def close(self) -> None:
        """Ends the watching, with one more look."""
        self._ending.set()
        self._thread.join(20)
        self.look()
        self._link.close()

    def totals(self) -> Counter[str]:
        """The counters summed over generations, of those that were wiped as last read."""
        total: Counter[str] = Counter()
        for books in self.by_generation.values():
            total.update({name: n for name, n in books.items() if isinstance(n, int)})
        return total

    def _watch(self) -> None:
        while not self._ending.wait(LOOK_EVERY_S):
            self.look()

    def _offend(self, what: str) -> None:
        if len(self.offences) < 20:
            self.offences.append(what)


class Trained(NamedTuple):
    """What the learners' logs say of the blocks that were trained on."""

    blocks: int
    twice: list[str]
    out_of_order: list[str]


def audit(logs: Iterable[str]) -> Trained:
    """I3, no block is trained on twice, and I5, each producer's in their order."""
    seen: set[str] = set()
    last: dict[str, int] = {}
    twice, out_of_order = [], []
    for log in logs:
        for producer, number in re.findall(r"trained on (\S+#\d+):(\d+)", log):
            block = f"{producer}:{number}"
            if block in seen:
                twice.append(block)
            elif int(number) <= last.get(producer, 0):
                out_of_order.append(block)
            seen.add(block)
            last[producer] = max(last.get(producer, 0), int(number))
    return Trained(len(seen), twice, out_of_order)


class Growth(NamedTuple):
    """How a process's memory and open files went, after its warm-up."""

    process: str
    life_s: float
    mb: float  # resident, at the end
    mb_per_h: float
    files: int  # the most
    files_more: int  # the most of the last third beyond the most of the first


class MemoryWatch:
    """Samples resident memory and open files of processes, by name."""

    def __init__(self) -> None:
        self._samples: dict[str, list[tuple[float, int, int]]] = {}
        self._due = 0.0

    def sample(self, processes: dict[str, int]) -> None:
        """Looks, if it is time to."""
        now = time.monotonic()
        if now < self._due:
            return
        self._due = now + SAMPLE_EVERY_S
        for name, pid in processes.items():
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            except (FileNotFoundError, ProcessLookupError, IndexError):
                continue
            self._samples.setdefault(name, []).append((now, pages * PAGE_BYTES, files))

    def growths(self) -> list[Growth]:
        """The growth of every process that lived long enough."""
        return [
            growth
            for name, samples in self._samples.items()
            if (growth := _growth(name, samples)) is not None
        ]


def _growth(name: str, samples: list[tuple[float, int, int]]) -> Growth | None:
    began, ended = samples[0][0], samples[-1][0]
    warm = [sample for sample in samples if sample[0] >= began + WARM_UP_S]
    if ended - began < LEAST_LIFE_S:
        return None
    third = max(1, len(warm) // 3)
    files = [sample[2] for sample in warm]
    return Growth(
        process=name,
        life_s=ended - began,
        mb=samples[-1][1] / 1e6,
        mb_per_h=_slope([(t, memory) for t, memory, _ in warm]) * 3600 / 1e6,
        files=max(files),
        files_more=max(files[-third:]) - max(files[:third]),
    )


def _slope(points: list[tuple[float, float]]) -> float:
    """The slope of the least-squares line."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0
