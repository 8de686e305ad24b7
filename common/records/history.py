"""Reads a run directory back: what the run was, and its records as series of numbers.

Another process, which may have been killed while it wrote, or another version has written all of
it: a line that is no record is skipped and counted, a figure that is no number is left out.
"""

import io
import json
import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.errors import ConfigError, RunUnreadable, printable
from impala_redis.common.records.rundir import RunDirectory, way_to_a_run
from impala_redis.common.run.config import Config

Column = NDArray[np.float64]

# A figure beyond this is not drawn; float32, in which figures are computed, ends earlier.
LARGEST = 1e100
# A file with more names than this was not written by us; the rest is left out.
FIGURES = 500


@dataclass(frozen=True)
class RunRecords:
    """The lines of metrics.jsonl, by figure."""

    count: int
    numbers: dict[str, Column]  # each [count], NaN where a record has no value
    lists: dict[str, list[tuple[int, Column]]]  # single values: the record, what it holds

    def column(self, name: str) -> Column:
        """The figure in each record: [count]."""
        found = self.numbers.get(name)
        return np.full(self.count, np.nan) if found is None else found

    def last(self, name: str) -> float:
        """The figure's newest value, NaN when it has none."""
        values = self.column(name)
        values = values[np.isfinite(values)]
        return float(values[-1]) if len(values) else math.nan


@dataclass(frozen=True)
class Run:
    """A run as its directory describes it."""

    path: Path
    name: str
    preset: str | None
    settings: dict[str, Any]  # by key, each of them; empty when there is no config.toml
    result: dict[str, Any]  # empty while the run has not ended
    records: RunRecords
    skipped_lines: int  # lines of metrics.jsonl that are no record

    @property
    def seed(self) -> int | None:
        """The seed of weights, environments and actions."""
        return self.settings.get("seed")


class Group(NamedTuple):
    """Runs of the same settings, the seed aside; a run of unknown settings is a group by itself."""

    differing: dict[str, Any]  # settings in which the groups differ, by key; none if unknown
    runs: list[Run]


def read_run(path: Path) -> Run:
    """The run in a directory. Raises RunUnreadable: no run, no records yet, or a newer format."""
    directory = RunDirectory(path)
    try:
        _check_that_it_holds_a_run(directory)
        identity, settings = directory.read_config()
        complete = Config().replace(settings).values() if settings else {}
        records, skipped_lines = _read_records(directory.metrics)
    except OSError as error:
        raise RunUnreadable(
            f"the run in {printable(path)} cannot be read ({error.strerror}); change the "
            "permissions, or name another directory"
        ) from error
    except ConfigError as error:
        raise RunUnreadable(
            f"the run in {printable(path)} cannot be read: {printable(error)}; repair its "
            "config.toml, or remove it to go without the settings"
        ) from error
    if not records.count:
        lines = f" ({skipped_lines} lines of metrics.jsonl are no records)" if skipped_lines else ""
        raise RunUnreadable(
            f"the run in {printable(path)} has no records yet: it has only just begun, or ended "
            f"before the first one; ask again after its first update{lines}"
        )
    name, preset = identity.get("name"), identity.get("preset")
    return Run(
        path=path,
        name=name if isinstance(name, str) else path.resolve().name,
        preset=preset if isinstance(preset, str) else None,
        settings=complete,
        result=directory.read_result() or {},
        records=records,
        skipped_lines=skipped_lines,
    )


def _check_that_it_holds_a_run(directory: RunDirectory) -> None:
    path, name = directory.path, printable(directory.path)
    if not path.exists():
        raise RunUnreadable(f"there is no directory {name}; name one that holds a run")
    if not path.is_dir():
        raise RunUnreadable(f"{name} is a file; {way_to_a_run(path)}")
    if not directory.holds_a_run:
        raise RunUnreadable(
            f"{name} holds no run (neither config.toml nor metrics.jsonl); {way_to_a_run(path)}"
        )


def _read_records(path: Path) -> tuple[RunRecords, int]:
    """The records, and the number of lines that are none.

    Numbers go into arrays as they are read: a Python list would hold each as an object.
    """
    count, skipped = 0, 0
    found: dict[str, array[float]] = {}
    lists: dict[str, list[tuple[int, Column]]] = {}
    with path.open("rb") if path.exists() else io.BytesIO() as file:
        for line in file:
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                skipped += bool(line.strip())
                continue
            for name, value in record.items():
                if len(found) + len(lists) >= FIGURES and not (name in found or name in lists):
                    continue
                if isinstance(value, list):
                    several = np.fromiter(map(number_or_nan, value), np.float64, len(value))
                    lists.setdefault(name, []).append((count, several))
                elif math.isfinite(figure := number_or_nan(value)):
                    values = found.setdefault(name, array("d"))
                    if len(values) < count:  # the figure was absent for a while
                        values.extend(repeat(math.nan, count - len(values)))
                    values.append(figure)
            count += 1
    for values in found.values():
        values.extend(repeat(math.nan, count - len(values)))
    numbers = {name: np.frombuffer(values) for name, values in found.items()}
    return RunRecords(count, numbers, lists), skipped


def number_or_nan(value: Any) -> float:
    """The value if it is a number that can be drawn, else NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > LARGEST:
        return math.nan
    return float(value)


def series(records: RunRecords, name: str, over: str = "frames") -> tuple[Column, Column]:
    """The figure where it has a value, against another one: x [P] and y [P]."""
    x, y = records.column(over), records.column(name)
    present = np.isfinite(x) & np.isfinite(y)
    return x[present], y[present]


def names(runs: Sequence[Run]) -> list[str]:
    """Every figure that has a value somewhere, in order of appearance."""
    return list(dict.fromkeys(name for run in runs for name in run.records.numbers))


def mean(records: RunRecords, name: str, per: str) -> float | None:
    """The figure's mean, each record weighted by what `per` (updates, time_s) rose since the last.

    The first record, in which everything starts, has none before it: it counts only when there is
    no other. None when the figure has no value.
    """
    values = records.column(name)
    weights = np.maximum(np.diff(records.column(per), prepend=np.nan), 0.0)
    present = np.isfinite(values) & np.isfinite(weights)
    if present.any() and weights[present].sum() > 0:
        return float(np.average(values[present], weights=weights[present]))
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None


def grouped(runs: Sequence[Run]) -> list[Group]:
    """The runs grouped by their settings, the seed aside."""
    by_settings: dict[str, list[Run]] = {}
    for index, run in enumerate(runs):
        known = repr([(k, v) for k, v in run.settings.items() if k != "seed"])
        by_settings.setdefault(known if run.settings else f"unknown {index}", []).append(run)
    firsts = [members[0].settings for members in by_settings.values()]
    differing = list(_differing(firsts))
    return [
        Group({key: settings[key] for key in differing if key in settings}, members)
        for settings, members in zip(firsts, by_settings.values(), strict=True)
    ]


def _differing(settings: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The keys, other than the seed, that have more than one value; unknown settings have none."""
    settings = [one for one in settings if one]
    for key in dict.fromkeys(key for one in settings for key in one):
        if key != "seed" and len({repr(one.get(key)) for one in settings}) > 1:
            yield key
