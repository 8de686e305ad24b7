"""Reads a run directory back: what the run was, and its records as series of numbers.

Another process, which may have been killed while it wrote, or another version has written all of
it: a line that is no record is skipped and counted, a figure that is no number is left out.
"""

import math
import os
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.errors import ConfigError, RunUnreadable, printable
from impala_redis.common.files import open_to_read
from impala_redis.common.records.lines import lines_of, number_or_nan, record_of
from impala_redis.common.records.rundir import RunDirectory, way_to_a_run
from impala_redis.common.run.config import Config

Column = NDArray[np.float64]

# A file with more names than this was not written by us; the rest is left out.
FIGURES, LONGEST_NAME = 1000, 200
# A record lists at most 20 values one by one; of a longer list the rest is left out.
LONGEST_LIST = 1000
# This many numbers are held (8 bytes each): 27 days of records every 5 s. Of a longer run every
# other record is left out, as often as need be.
MOST_NUMBERS = 40_000_000


@dataclass(frozen=True)
class RunRecords:
    """The lines of metrics.jsonl, by figure."""

    count: int
    numbers: dict[str, Column]  # each [count], NaN where a record has no value
    lists: dict[str, list[tuple[int, Column]]]  # single values: the record, what it holds
    every: int = 1  # only each so-manieth record was kept, for there were too many, and the last

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
    init_from: str | None = None  # the run whose weights it began with

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
        result = directory.read_result() or {}
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
    name, preset, init_from = (identity.get(key) for key in ("name", "preset", "init_from"))
    return Run(
        path=path,
        name=name if isinstance(name, str) else path.resolve().name,
        preset=preset if isinstance(preset, str) else None,
        settings=complete,
        result=result,
        records=records,
        skipped_lines=skipped_lines,
        init_from=init_from if isinstance(init_from, str) else None,
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


class _Reading:
    """Records as they are read.

    Numbers go into arrays at once: a Python list would hold each as an object.
    """

    def __init__(self) -> None:
        self._numbers: dict[str, array[float]] = {}
        self._lists: dict[str, list[tuple[int, Column]]] = {}
        self._count, self._in_lists = 0, 0  # records, and numbers in lists
        self._every, self._read = 1, 0
        self._latest: Mapping[str, Any] | None = None  # unless it is kept

    def add(self, record: Mapping[str, Any]) -> None:
        """Takes the next record in."""
        if self._read % self._every:
            self._latest = record
        else:
            self._keep(record)
            if self._count * len(self._numbers) + self._in_lists > MOST_NUMBERS:
                self._halve()
        self._read += 1

    def _keep(self, record: Mapping[str, Any]) -> None:
        self._latest = None
        for name, value in record.items():
            known = name in self._numbers or name in self._lists
            full = len(self._numbers) + len(self._lists) >= FIGURES
            if not known and (full or len(name) > LONGEST_NAME):
                continue
            if isinstance(value, list):
                several = np.array([number_or_nan(one) for one in value[:LONGEST_LIST]])
                self._lists.setdefault(name, []).append((self._count, several))
                self._in_lists += len(several)
            elif math.isfinite(figure := number_or_nan(value)):
                values = self._numbers.setdefault(name, array("d"))
                if len(values) < self._count:  # the figure was absent for a while
                    values.extend(repeat(math.nan, self._count - len(values)))
                values.append(figure)
        self._count += 1

    def _halve(self) -> None:
        """Leaves out every other record."""
        self._every *= 2
        self._count = (self._count + 1) // 2
        self._numbers = {name: values[::2] for name, values in self._numbers.items()}
        self._lists = {
            name: [(record // 2, values) for record, values in lists if record % 2 == 0]
            for name, lists in self._lists.items()
        }
        self._in_lists = sum(len(one) for lists in self._lists.values() for _, one in lists)

    def records(self) -> RunRecords:
        """All that was kept, and the last one in any case."""
        if self._latest is not None:
            self._keep(self._latest)
        for values in self._numbers.values():
            values.extend(repeat(math.nan, self._count - len(values)))
        numbers = {name: np.frombuffer(values) for name, values in self._numbers.items()}
        return RunRecords(self._count, numbers, self._lists, self._every)


def _read_records(path: Path) -> tuple[RunRecords, int]:
    """The records, and the number of lines that are none. Raises OSError."""
    reading, skipped = _Reading(), 0
    if os.path.lexists(path):
        with open_to_read(path) as file:
            for line in lines_of(file):
                record = record_of(line)
                if record is not None:
                    reading.add(record)
                else:
                    skipped += bool(line.strip())
    return reading.records(), skipped


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
