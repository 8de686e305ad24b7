"""Runs a program whose wall clock is wrong by an hour, and leaps back and forth every half second.

    skewed.py PROGRAM [the program's own options]

PROGRAM is "actor" or "learner". Monotonic clocks are left alone, as they are by whoever sets a
machine's clock.
"""

import importlib
import sys
import time

HOUR_S = 3600.0
LEAP_EVERY_S = 0.5


def leap_about(first: int) -> None:
    """Patches the wall clock: an hour ahead, an hour behind, and so on; `first` turns it round."""
    true_ns = time.time_ns

    def leap_s() -> float:
        return HOUR_S if (int(time.monotonic() / LEAP_EVERY_S) + first) % 2 else -HOUR_S

    time.time = lambda: true_ns() / 1e9 + leap_s()
    time.time_ns = lambda: true_ns() + int(leap_s() * 1e9)


def main() -> None:
    """Breaks the clock and becomes the program."""
    program, *options = sys.argv[1:]
    leap_about(first=program == "learner")  # never the same hour as an actor's
    sys.argv = [f"impala-{program}", *options]
    importlib.import_module(f"impala_redis.workers.{program}").main()


if __name__ == "__main__":
    main()
