"""What every part stands on: a server, a learner at work on it, and processes that push."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import redis

from bench.load import roles
from bench.load.crew import CORES, Crew, Server
from bench.load.flood import flood
from bench.load.roles import RUN
from bench.targets import Grid, Target
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.keys import Keys
from impala_redis.common.transport.monitor import MonitorLink

# One thread floods while server and learner have a core each; no more than this are needed.
MOST_FLOODERS = 8
# A flood runs for this share of its time before it is measured.
WARM_UP = 0.1
Figures = dict[str, float]


class Bench(NamedTuple):
    """How long to measure, and with what share of the targets' load."""

    seconds: float
    load: float
    folder: Path

    def many(self, count: int) -> int:
        """A count of the targets, scaled by --load."""
        return max(2, round(count * self.load))

    @property
    def moment_s(self) -> float:
        """A second, or less for a quick look."""
        return min(1.0, self.seconds)

    @contextmanager
    def stage(
        self, spec: RunSpec, credits: int | None = None, **learning: Any
    ) -> Iterator["Stage"]:
        """A fresh server, a learner at work on it, and room for a crew."""
        with Server(self.folder) as server, stage_on(server, spec, credits, **learning) as stage:
            yield stage


class Part(NamedTuple):
    """One part of the benchmark."""

    measure: Callable[[Bench], Figures]
    targets: list[Target]
    grid: Grid | None = None


class Reading(NamedTuple):
    """What was used and done up to one moment of the server's clock."""

    at_s: float
    server_cpu_s: float
    learner_cpu_s: float
    produced: int
    consumed: int
    version: int  # of the weights


class Stage(NamedTuple):
    """A server, a learner, and a crew that puts load on them."""

    server: Server
    url: str
    crew: Crew
    spec: RunSpec
    learned: Callable[[], dict[str, Any]]

    def produce(self, name: str, actors: int, seconds: float, every_s: float = 0.0) -> Any:
        """Starts actors that push; returns a function that waits for what they measured."""
        names = [f"{name}-{index}" for index in range(actors)]
        return self.crew.start(
            roles.produce, self.url, self.spec, self.crew, names, seconds, every_s
        )

    def flood(self, name: str, actors: int, seconds: float, **pushing: Any) -> dict[str, Any]:
        """Pushes from many connections for `seconds`: rates, latencies and cores of all parties."""
        processes = min(actors, MOST_FLOODERS, max(1, CORES - 2))
        signals = self.crew.signals(processes + 1)
        names = [f"{name}-{index}" for index in range(actors)]
        flooding = [
            self.crew.start(flood, self.url, self.spec, signals, names[i::processes], **pushing)
            for i in range(processes)
        ]
        with closing(Meter(self)) as meter:
            signals.begin.wait(60)
            time.sleep(WARM_UP * seconds)
            before = meter.read()
            time.sleep(seconds)
            after = meter.read()
        signals.end.set()
        figures = [flooded() for flooded in flooding]
        window_s = after.at_s - before.at_s
        return {
            "pushed_per_s": (after.produced - before.produced) / window_s,
            "taken_per_s": (after.consumed - before.consumed) / window_s,
            "server_cores": (after.server_cpu_s - before.server_cpu_s) / window_s,
            "learner_cores": (after.learner_cpu_s - before.learner_cpu_s) / window_s,
            "flood_cores": sum(one["cores"] for one in figures),
            "published_per_s": (after.version - before.version) / window_s,
            "fetched_per_s": sum(len(one["fetch_ms"]) / one["seconds"] for one in figures),
            "push_ms": [ms for one in figures for ms in one["push_ms"]],
            "fetch_ms": [ms for one in figures for ms in one["fetch_ms"]],
        }

    def end(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Stops all roles; returns what the learner measured, and the books."""
        self.crew.stop.set()
        learned = self.learned()
        with closing(MonitorLink(self.url, RUN, "bench")) as monitor:
            return learned, monitor.read_books()


class Meter:
    """Reads what is done and used, over a connection made before the load begins."""

    def __init__(self, stage: Stage) -> None:
        self._crew = stage.crew
        self._client: Any = redis.Redis.from_url(stage.url, socket_timeout=10)
        self.read()

    def read(self) -> Reading:
        """The server's clock, its main thread's processor time and the books, at one moment."""
        pipe = self._client.pipeline(transaction=False)
        pipe.time().info("cpu").hmget(Keys(RUN).stats, ["produced", "consumed"])
        pipe.hget(Keys(RUN).weights, "version")
        (s, us), info, (produced, consumed), version = pipe.execute()
        # Only some systems have the main thread's own.
        thread = "_main_thread" if "used_cpu_user_main_thread" in info else ""
        cpu_s = info[f"used_cpu_user{thread}"] + info[f"used_cpu_sys{thread}"]
        learner_cpu_s = self._crew.learner_cpu_s.value
        counts = map(int, (produced, consumed, version))
        return Reading(s + us / 1e6, cpu_s, learner_cpu_s, *counts)

    def close(self) -> None:
        """Ends the connection."""
        self._client.close()


@contextmanager
def stage_on(
    server: Server, spec: RunSpec, credits: int | None = None, url: str = "", **learning: Any
) -> Iterator[Stage]:
    """A learner at work on a server that has none yet, and room for a crew."""
    url = url or server.url
    with Crew(credits) as crew:
        learned = crew.start(roles.learn, url, spec, crew, **learning)
        if not crew.ready.wait(60):
            raise RuntimeError("the learner did not open the run")
        yield Stage(server, url, crew, spec, learned)


def spread(name: str, values: list[float]) -> Figures:
    """Median, 99th percentile and maximum."""
    ordered = sorted(values)
    return {
        f"{name}_p50_ms": statistics.median(ordered),
        f"{name}_p99_ms": ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        f"{name}_max_ms": ordered[-1],
    }
