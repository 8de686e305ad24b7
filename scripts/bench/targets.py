"""Targets beside the figures that were reached, as tables for people and as rows for JSON."""

import statistics
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from rich.table import Table


class Target(NamedTuple):
    """What a figure should be."""

    figure: str
    words: str
    sense: Literal["<=", ">=", "=="] = "<="
    limit: float = 0
    unit: str = "ms"

    def met(self, value: float) -> bool:
        """Whether the figure is as it should be."""
        if self.sense == "==":
            return value == self.limit
        return value <= self.limit if self.sense == "<=" else value >= self.limit


def judged(part: str, target: Target, values: list[float]) -> dict[str, Any]:
    """A target beside its figure; a target that is exact must be met in every repeat."""
    figure = statistics.median(values)
    met = all(target.met(value) for value in (values if target.sense == "==" else [figure]))
    spread = {"value": figure, "low": min(values), "high": max(values), "met": met}
    return {"part": part} | target._asdict() | spread


def table(rows: list[dict[str, Any]], repeat: int) -> Table:
    """The targets and their figures, for people."""
    shown = Table("part", "what", "target", "figure", "", title="transport under load")
    senses = {"<=": "at most ", ">=": "at least ", "==": ""}
    for row in rows:
        spread = f" ({row['low']:,.4g} to {row['high']:,.4g})" if repeat > 1 else ""
        shown.add_row(
            row["part"],
            row["words"],
            f"{senses[row['sense']]}{row['limit']:,.4g} {row['unit']}",
            f"{row['value']:,.4g} {row['unit']}{spread}",
            "met" if row["met"] else "NOT met",
        )
    return shown


class Grid(NamedTuple):
    """Figures side by side, each named `row_column`; both with their words."""

    title: str
    rows: Mapping[str, str]
    columns: Mapping[str, str]


def grid_table(grid: Grid, figures: Mapping[str, list[float]]) -> Table:
    """The medians; in the first column also half the range of the repeats, in percent."""
    shown = Table(title=grid.title)
    shown.add_column(no_wrap=True)
    for words in grid.columns.values():
        shown.add_column(words, justify="right")
    for row, words in grid.rows.items():
        values = [figures.get(f"{row}_{column}") for column in grid.columns]
        cells = ["-" if not repeats else _short(statistics.median(repeats)) for repeats in values]
        if values[0] and len(values[0]) > 1:
            cells[0] += f" ±{_half_range_percent(values[0]):.0f}%"
        shown.add_row(words, *cells)
    return shown


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _half_range_percent(values: list[float]) -> float:
    middle = statistics.median(values)
    return 50 * (max(values) - min(values)) / middle if middle else 0.0
