"""Options, meter and the final line of JSON, shared by all drivers.

Both figures are taken at updates: a frame counts when the learner has used it.
"""

import argparse
import json
import os
import platform
import signal
import time
from collections import deque
from importlib.metadata import version
from typing import Any

SOLVED_RETURN = 475.0
EPISODES = 100


def read_options() -> argparse.Namespace:
    """The options that bench_peers.py gives every driver; times are in seconds.

    On SIGTERM, which it also gets when bench_peers.py dies, a driver ends its whole process group.
    """
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    parser = argparse.ArgumentParser()
    parser.add_argument("--what", choices=["fps", "solve"], required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--warmup-s", type=float, required=True)
    parser.add_argument("--limit-s", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--started-s", type=float, required=True, help="by time.monotonic")
    parser.add_argument("--ours", default="", help="options of impala-train, for our own driver")
    return parser.parse_args()


class Meter:
    """Frames per second after the warm-up; or the seconds until the task is solved.

    The warm-up begins with the first update. Solved is a mean return of the last 100 finished
    training episodes of at least 475; its seconds count from the start of the process.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._returns: deque[float] = deque(maxlen=EPISODES)
        self._first_s: float | None = None
        self._warm: tuple[float, int] | None = None  # when, and frames until then
        self._last: tuple[float, int] = (0.0, 0)
        self._best = 0.0
        self._solved_s: float | None = None

    def episode(self, episode_return: float) -> None:
        """A training episode has finished."""
        self._returns.append(float(episode_return))

    def mean_return(self, mean: float) -> None:
        """Replaces `episode` for a system that reports only the mean of the last 100."""
        self._returns.extend([float(mean)] * EPISODES)

    def update(self, frames: int) -> bool:
        """Notes the frames that the learner has used so far; returns whether that is enough."""
        now = time.monotonic()
        self._last = (now, int(frames))
        if self._first_s is None:
            self._first_s = now
        if self._warm is None and now - self._first_s >= self._options.warmup_s:
            self._warm = self._last
        if self._options.what == "fps":
            return self._warm is not None and now - self._warm[0] >= self._options.seconds
        if len(self._returns) == EPISODES:
            mean = sum(self._returns) / EPISODES
            self._best = max(self._best, mean)
            if mean >= SOLVED_RETURN:
                self._solved_s = now - self._options.started_s
        return self._solved_s is not None or now - self._options.started_s > self._options.limit_s

    def figures(self) -> dict[str, Any]:
        """What was measured: frames, and fps over measured_s; or solve_s, None if not solved."""
        (now, frames), warm = self._last, self._warm
        if self._options.what == "solve":
            return {"solve_s": self._solved_s, "frames": frames, "best_return": self._best}
        if warm is None or now <= warm[0]:
            raise SystemExit("error: it ended before the warm-up was over")
        measured_s = now - warm[0]
        return {"fps": (frames - warm[1]) / measured_s, "measured_s": measured_s, "frames": frames}


def tell(settings: str, figures: dict[str, Any], *packages: str) -> None:
    """Prints the line of JSON: the settings in words, the figures, the packages' versions."""
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    rounded = {k: round(v, 3) if isinstance(v, float) else v for k, v in figures.items()}
    print(json.dumps({"settings": settings, **rounded, "versions": versions}), flush=True)
