"""Lays the actors' environment steps over the learner's updates: do actors pause meanwhile?

    .venv/bin/python scripts/overlap.py [--seconds 5] [--output docs/figures/never-pausing.png]

CartPole-v1 with one learner and four actors, each the real program in a process of its own, which
only notes when each update and each step begins and ends. Twice: as it is, and with updates made
longer by a sleep of 200 ms. Prints how long an actor takes from one step to the next, for steps
that begin during an update and for those that do not. Exit code 1 if an actor made no step in a
long update, or slept.

On a machine with fewer cores than processes an actor often waits for a processor, though never for
the learner: `asleep` is the share of its time in which it neither computed nor waited for a
processor. What counts as a long update leaves room for the operating system's turns.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.local.embedded import EmbeddedServer

ACTORS = 4
RUN = "overlap"
# An actor must step in an update that takes this many of its step times, and this many seconds.
LONG_STEPS, LONG_S = 20.0, 0.1
# The share of its time that an actor may sleep: it also waits for its own threads.
MOST_ASLEEP = 0.25
SLOW_UPDATE_S = 0.2
START_LIMIT_S, END_LIMIT_S = 60.0, 30.0
TRACED = Path(__file__).parent / "bench" / "traced.py"
UPDATE, STEP = "#b5482f", "#22577a"

Times = NDArray[np.float64]  # [n, 2]: begin and end, by time.monotonic


class Timeline(NamedTuple):
    """The notes from the time in which all processes were at work."""

    updates: Times
    steps: list[Times]  # of each actor
    asleep_shares: list[float]  # of each actor's time: waiting for something else than a processor


class Intervals(NamedTuple):
    """Seconds from the beginning of one step to that of the next."""

    median_s: float
    p99_s: float
    longest_s: float


# The programs.


def measure(seconds: float, sleep_s: float) -> Timeline:
    """Runs a learner and four actors until they have worked together for `seconds`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with EmbeddedServer(folder) as server:
            learner = start(folder, server.url, "learner", "learner", sleep_s)
            actors = [start(folder, server.url, "actor", f"actor-{i}") for i in range(ACTORS)]
            try:
                wait_for_words(folder / "learner.log", "the first batch is here", learner)
                for i, actor in enumerate(actors):
                    wait_for_words(folder / f"actor-{i}.log", "joined", actor)
                time.sleep(seconds)
            finally:
                for process in [*actors, learner]:
                    process.send_signal(signal.SIGTERM)
                for process in [*actors, learner]:
                    process.wait(END_LIMIT_S)
        updates = read(folder / "learner.times")
        steps = [read(folder / f"actor-{i}.times") for i in range(ACTORS)]
        awake = [read(folder / f"actor-{i}.awake") for i in range(ACTORS)]
        return together(updates, steps, awake)


def start(
    folder: Path, url: str, program: str, name: str, sleep_s: float = 0.0
) -> subprocess.Popen[bytes]:
    """Starts a program that takes notes; it prints to NAME.log, its notes go to NAME.times."""
    options = ["--run", RUN]
    if program == "learner":
        options += ["--preset", "cartpole", "--run-dir", str(folder / "run")]
        options += ["--stop-at-return", "none", "--total-frames", "500_000_000"]
        options += ["--envs-per-actor", "32"]
    else:
        options += ["--actor-id", name]
    notes = str(folder / f"{name}.times")
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, str(TRACED), program, notes, str(sleep_s), *options],
            env=os.environ | {"IMPALA_REDIS_URL": url},
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def wait_for_words(log: Path, words: str, process: subprocess.Popen[bytes]) -> None:
    """Waits until the words stand in a program's log. Raises RuntimeError."""
    deadline = time.monotonic() + START_LIMIT_S
    while words not in log.read_text():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{log.stem} did not come to {words!r}:\n{log.read_text()}")
        time.sleep(0.02)


def read(file: Path) -> Times:
    """What a program has noted."""
    return np.frombuffer(file.read_bytes(), np.float64).reshape(-1, 2)


# What the notes show.


def together(updates: Times, steps: list[Times], awake: list[Times]) -> Timeline:
    """The notes from the time in which all programs were at work."""
    everyone = [updates, *steps]
    first = max(times[0, 0] for times in everyone)
    last = min(times[-1, 1] for times in everyone)
    kept = [times[(times[:, 0] >= first) & (times[:, 1] <= last)] for times in everyone]
    shares = []
    for notes in awake:  # [n, 2]: when, and seconds awake until then
        within = notes[(notes[:, 0] >= first) & (notes[:, 0] <= last)]
        whole_s, awake_s = within[-1] - within[0]
        shares.append(max(0.0, float(1.0 - awake_s / whole_s)))
    return Timeline(kept[0], kept[1:], shares)


def during(moments: NDArray[np.float64], updates: Times) -> NDArray[np.bool_]:
    """Which of the moments lie within an update, [moments] bool."""
    before = np.searchsorted(updates[:, 0], moments, side="right") - 1
    return (before >= 0) & (moments < updates[np.maximum(before, 0), 1])


def intervals(steps: Times, updates: Times, inside: bool) -> Intervals | None:
    """An actor's step intervals that begin in an update, or outside; None if there are none."""
    lengths_s = np.diff(steps[:, 0])[during(steps[:-1, 0], updates) == inside]
    if not len(lengths_s):
        return None
    median_s, p99_s = np.quantile(lengths_s, [0.5, 0.99])
    return Intervals(float(median_s), float(p99_s), float(lengths_s.max()))


def long_updates(timeline: Timeline, steps: Times) -> Times:
    """The updates that are long enough for this actor to show whether it pauses."""
    least_s = max(LONG_S, LONG_STEPS * float(np.median(np.diff(steps[:, 0]))))
    return timeline.updates[np.diff(timeline.updates)[:, 0] > least_s]


def steps_within(steps: Times, updates: Times) -> NDArray[np.int64]:
    """How many steps of an actor began in each of the updates."""
    began = steps[:, 0]
    return np.searchsorted(began, updates[:, 1]) - np.searchsorted(began, updates[:, 0])


def pauses(timeline: Timeline) -> list[str]:
    """A sentence for each actor that made no step in some long update, or slept much."""
    found = []
    for i, steps in enumerate(timeline.steps):
        idle = int((steps_within(steps, long_updates(timeline, steps)) == 0).sum())
        if idle:
            found.append(f"actor {i} made no step in {idle} long updates")
    for i, share in enumerate(timeline.asleep_shares):
        if share > MOST_ASLEEP:
            found.append(f"actor {i} slept {100 * share:.0f} % of its time")
    return found


def tell(title: str, timeline: Timeline) -> None:
    """The figures as text."""
    updates = timeline.updates
    lengths_ms = 1e3 * np.diff(updates)[:, 0]
    whole_s = updates[-1, 1] - updates[0, 0]
    print(
        f"{title}: {len(updates)} updates in {whole_s:.1f} s, median {np.median(lengths_ms):.2f} "
        f"ms, longest {lengths_ms.max():.1f} ms; {lengths_ms.sum() / whole_s / 10:.0f} % of the "
        "time is within one"
    )
    print(
        "           steps   asleep  long updates  fewest steps   ms from step to step: "
        "median / p99 / most"
    )
    for i, steps in enumerate(timeline.steps):
        judged = long_updates(timeline, steps)
        fewest = str(steps_within(steps, judged).min()) if len(judged) else "-"
        columns = [
            f"{name} {1e3 * found.median_s:.3f} / {1e3 * found.p99_s:.2f} / "
            f"{1e3 * found.longest_s:.1f}"
            for name, inside in (("during updates", True), ("else", False))
            if (found := intervals(steps, updates, inside))
        ]
        print(
            f"  actor {i} {len(steps):7} {100 * timeline.asleep_shares[i]:5.1f} % "
            f"{len(judged):13} {fewest:>13}   {'   '.join(columns)}",
            flush=True,
        )


def seen(times: Times, first: float, span_s: float) -> Times:
    """The times within a panel's stretch of time."""
    return times[(times[:, 1] >= first) & (times[:, 0] <= first + span_s)]


def draw(panels: list[tuple[str, Timeline, float]], output: Path) -> None:
    """A panel for each timeline: its title, what happened, and how many seconds of it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.3), layout="constrained")
    figure.suptitle(
        "Each blue stroke is the end of an actor's environment step; shaded: the learner updates. "
        f"{1 + ACTORS} processes, {len(os.sched_getaffinity(0))} processor cores",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    for axes, (title, timeline, span_s) in zip(
        figure.subplots(len(panels), 1), panels, strict=True
    ):
        updates = timeline.updates
        middle = updates[len(updates) // 2, 0]
        for began, ended in 1e3 * (seen(updates, middle, span_s) - middle):
            axes.broken_barh([(began, ended - began)], (-0.36, 0.72), color=UPDATE, linewidth=0)
            axes.axvspan(began, ended, color=UPDATE, alpha=0.13, linewidth=0)
        for i, steps in enumerate(timeline.steps):
            # A mark where each step ends: a bar would show waiting for a processor as work.
            ends = 1e3 * (seen(steps, middle, span_s)[:, 1] - middle)
            axes.vlines(ends, -i - 1.36, -i - 0.64, color=STEP, linewidth=0.5)
        axes.set_yticks(
            range(0, -ACTORS - 1, -1),
            ["learner: update", *(f"actor {i}: steps" for i in range(ACTORS))],
        )
        axes.set_xlim(0, 1e3 * span_s)
        axes.set_ylim(-ACTORS - 0.5, 0.5)
        axes.set_xlabel("ms")
        axes.set_title(title, loc="left", fontsize=10)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="measured for each of the two")
    parser.add_argument("--output", type=Path, default=Path("docs/figures/never-pausing.png"))
    options = parser.parse_args()
    panels, found = [], []
    for title, sleep_s, span_s in (
        ("CartPole-v1 as it is", 0.0, 0.1),
        (f"every update made longer by {1e3 * SLOW_UPDATE_S:.0f} ms", SLOW_UPDATE_S, 1.0),
    ):
        timeline = measure(options.seconds, sleep_s)
        tell(title, timeline)
        found += pauses(timeline)
        panels.append((title, timeline, span_s))
    draw(panels, options.output)
    print(f"figure: {options.output}")
    print("\n".join(found) if found else "no actor paused")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
