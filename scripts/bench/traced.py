"""A learner or an actor that notes when each of its updates or environment steps begins and ends.

    .venv/bin/python scripts/bench/traced.py learner|actor FILE SLEEP_S [options]

It serves `overlap.py`. The options are the program's own. Notes are written at the end, as pairs of
float64 of time.monotonic; a learner's updates take SLEEP_S longer.
"""

import atexit
import importlib
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

AWAKE_EVERY = 200  # notes, two of which belong to each call


def become(program: str, file: str, sleep_s: str, *options: str) -> None:
    """Becomes the program, which notes its steps or updates and writes them at its end."""
    notes = Notes()
    atexit.register(notes.write, Path(file))
    if program == "actor":
        envs: Any = importlib.import_module("impala_redis.common.envs.vector")
        envs.VectorEnvironment.step = notes.taken_of(envs.VectorEnvironment.step, 0.0)
    else:
        learning: Any = importlib.import_module("impala_redis.common.learning.learner")
        learning.Learner.update = notes.taken_of(learning.Learner.update, float(sleep_s))
    sys.argv = [f"impala-{program}", *options]
    importlib.import_module(f"impala_redis.workers.{program}").main()


class Notes:
    """When a method began and ended, and sometimes its thread's processor time."""

    def __init__(self) -> None:
        self._times, self._awake = array("d"), array("d")

    def taken_of(self, method: Callable[..., Any], sleep_s: float) -> Callable[..., Any]:
        """The same method, with notes; a call takes `sleep_s` longer."""

        def timed(*arguments: Any) -> Any:
            began = time.monotonic()
            result = method(*arguments)
            if sleep_s:
                time.sleep(sleep_s)
            self._times.extend((began, time.monotonic()))
            if len(self._times) % AWAKE_EVERY == 2:
                self._awake.extend((time.monotonic(), awake_s()))
            return result

        return timed

    def write(self, file: Path) -> None:
        """Writes the notes into two files."""
        file.write_bytes(self._times.tobytes())
        file.with_suffix(".awake").write_bytes(self._awake.tobytes())


def awake_s() -> float:
    """Seconds in which this thread computed, or would have if a processor had been free (Linux)."""
    _, waited_ns, _ = Path("/proc/thread-self/schedstat").read_text().split()
    return time.thread_time() + int(waited_ns) / 1e9


if __name__ == "__main__":
    become(*sys.argv[1:])
