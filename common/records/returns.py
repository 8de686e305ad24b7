"""A return as text."""

import math


def shown_return(value: float | None) -> str:
    """A return as every screen, log and page shows it; "-" for None and for NaN.

    One decimal place from 10 on, else two, and two significant digits of what is closer to 0.
    """
    if value is None or math.isnan(value):
        return "-"
    size = abs(value)
    return format(value, ",.1f" if size >= 10 else ".2f" if size >= 0.1 or not size else ".2g")
