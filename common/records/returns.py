"""Returns as texts."""

import math


def of_episodes(num_tasks: int = 1) -> str:
    """The episodes that a mean return is the mean of, in words."""
    return "over the last 100 episodes" if num_tasks < 2 else "over 100 episodes of each task"


def shown_return(value: float | None) -> str:
    """A return as every screen, log and page shows it; "-" for None and for NaN.

    One decimal place from 10 on, else two, and two significant digits of what is closer to 0.
    """
    if value is None or math.isnan(value):
        return "-"
    size = abs(value)
    return format(value, ",.1f" if size >= 10 else ".2f" if size >= 0.1 or not size else ".2g")
