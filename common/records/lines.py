"""The lines of metrics.jsonl, read with bounds: a killed learner or anybody may have left them."""

import json
import math
from collections.abc import Iterator
from typing import Any, BinaryIO

# A record takes a few KB.
MOST_LINE_BYTES = 1_048_576
# A figure beyond this is not drawn; float32, in which figures are computed, ends earlier.
LARGEST = 1e100


def lines_of(file: BinaryIO) -> Iterator[bytes]:
    """Each line; instead of one longer than `MOST_LINE_BYTES`, which is not held, b"?"."""
    while line := file.readline(MOST_LINE_BYTES + 1):
        if len(line) <= MOST_LINE_BYTES:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(MOST_LINE_BYTES)
        yield b"?"


def record_of(line: bytes) -> dict[str, Any] | None:
    """The record in a line; None if it holds none."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def number_or_nan(value: Any) -> float:
    """The value if it is a number that can be drawn, else NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        return math.nan
    return float(value)
