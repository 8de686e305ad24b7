"""Targets beside the figures that were reached: for people, and as rows for JSON."""

import statistics
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
    """A target beside its figure; what must be exact must be so in every repeat."""
    figure = statistics.median(values)
    met = all(target.met(value) for value in (values if target.sense == "==" else [figure]))
    spread = {"value": figure, "low": min(values), "high": max(values), "met": met}
    return {"part": part} | target._asdict() | spread


def table(rows: list[dict[str, Any]], figures: dict[str, Any], repeat: int) -> Table:
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
    cores = (f"{part} {max(values['others_cores']):.1f}" for part, values in figures.items())
    shown.caption = f"cores that other programs had meanwhile: {', '.join(cores)}"
    return shown
