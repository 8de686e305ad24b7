"""What a chart of the report is: its figures, its axes and its caption. `charts` draws it."""

from dataclasses import dataclass
from typing import NamedTuple

from impala_redis.common.records.figure import SHARE
from impala_redis.common.records.figures import FIGURES, find

# The units in which some figures are shown: how to get there from a record's.
SHOWN_IN = {"s": ("ms", 1e3), SHARE: ("%", 1e2)}
OVER = {"frames": "frames", "time_s": "time (s)", "episodes": "episode"}


class Line(NamedTuple):
    """A figure in a chart; a star at the end of its name stands for a number."""

    name: str
    label: str = ""  # before the number, where a star stands for one
    compared: bool = True  # has a chart of its own where several settings are compared


@dataclass(frozen=True)
class Chart:
    """What is drawn together."""

    slug: str
    title: str
    says: str  # the caption
    lines: tuple[Line, ...]
    unit: str | None = None  # None: that in which the first figure is shown
    over: str = "frames"
    band: tuple[str, str] | None = None  # figures: the least and the greatest around the line
    dots: str | None = None  # a figure that is a list of single values
    limit: tuple[str | float, str] | None = None  # a setting or a number, and what it is in words
    stacked: bool = False
    from_zero: bool = True
    from_start: bool = True  # the first record, in which the actors start, dwarfs no others
    may_be_log: bool = False  # when it spans more than a factor of LOG_BEYOND
    usual: float | None = None  # not drawn where the figure is always this

    @property
    def all_lines(self) -> tuple[Line, ...]:
        """The lines, and those of figures that name this chart."""
        more = (Line(f.name, f.label) for f in FIGURES.values() if f.chart == self.slug)
        return (*self.lines, *more)

    @property
    def axis_unit(self) -> str:
        """The unit beside the title."""
        return self._shown_in()[0] if self.unit is None else self.unit

    @property
    def factor(self) -> float:
        """From a record's unit to the chart's."""
        return self._shown_in()[1]

    def _shown_in(self) -> tuple[str, float]:
        figure = find(self.lines[0].name)
        unit = "" if figure is None else figure.unit
        return SHOWN_IN.get(unit, (unit, 1.0))
