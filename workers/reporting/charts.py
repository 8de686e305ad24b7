"""The charts of a report as they are drawn: SVG for the page, PNG beside it.

A chart whose figures are in no record is not drawn. Text is never taken for a formula.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from impala_redis.common.records import history
from impala_redis.common.records.history import Column, Group, Run
from impala_redis.common.records.lines import number_or_nan
from impala_redis.workers.reporting import canvas
from impala_redis.workers.reporting.canvas import MUTED, PAPER
from impala_redis.workers.reporting.chart import OVER, Chart, Line
from impala_redis.workers.reporting.curves import Curve, curve_of, spread
from impala_redis.workers.reporting.gallery import all_charts
from impala_redis.workers.reporting.words import group_labels, part_slug, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Narrow enough that its text can be read at the width of a phone.
WIDTH_IN, HEIGHT_IN, LEAST_PLOT_IN = 3.8, 2.6, 1.5
TITLE_IN, LEGEND_ROW_IN, AXIS_IN, LEFT_IN, RIGHT_IN = 0.32, 0.17, 0.42, 0.5, 0.14
DOTS = 500  # single episodes shown
NUMBERED = 12  # actions, or ranks of a group, that have a line each
LOG_BEYOND = 30.0  # greatest over least, from which a logarithmic scale shows more

# Okabe and Ito's colours, which colour-blind readers can tell apart, without yellow and black.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
STYLES = ("-", "--", ":", "-.")


class Drawing(NamedTuple):
    """A chart that has been drawn."""

    slug: str
    section: str
    says: str
    label: str  # for readers who cannot see it
    svg: str
    png: bytes


def draw_all(groups: Sequence[Group]) -> Iterator[Drawing]:
    """Every chart for which there are figures, in order."""
    canvas.load()
    runs = [run for group in groups for run in group.runs]
    there = history.names(runs)
    several = len(runs) > 1
    for section, chart in all_charts(there, runs):
        lines = tuple(_expanded(chart.all_lines, there))
        chart = replace(chart, lines=lines, limit=_limit(chart, runs))
        if several:  # their own spread is shown instead
            chart = replace(chart, band=None, dots=None)
        if not lines or (chart.usual is not None and _is_always(chart.usual, lines, groups)):
            continue
        for part in [chart] if len(groups) == 1 else _split(chart):
            drawing = draw(section, part, groups)
            if drawing is not None:
                yield drawing


def _expanded(lines: Sequence[Line], there: Sequence[str]) -> Iterator[Line]:
    """The lines whose figures are there; a star becomes each number that is."""
    for line in lines:
        if line.name.endswith("*"):
            begin = line.name.removesuffix("*")
            numbers = [name.removeprefix(begin) for name in there if name.startswith(begin)]
            numbers = [number for number in numbers if re.fullmatch("[0-9]{1,4}", number)]
            for number in sorted(numbers, key=lambda number: (len(number), number))[:NUMBERED]:
                yield line._replace(name=begin + number, label=f"{line.label} {number}")
        elif line.name in there:
            yield line


def _is_always(usual: float, lines: Sequence[Line], groups: Sequence[Group]) -> bool:
    columns = [
        run.records.column(line.name) for line in lines for group in groups for run in group.runs
    ]
    return all((column[np.isfinite(column)] == usual).all() for column in columns)


def _split(chart: Chart) -> Iterator[Chart]:
    """One chart for each compared line, since colours are needed for the settings."""
    for line in chart.lines:
        if line.compared or len(chart.lines) == 1:
            alone = len(chart.lines) == 1
            yield replace(
                chart,
                slug=chart.slug if alone else part_slug(chart, line),
                title=chart.title if alone else f"{chart.title}: {line.label}",
                lines=(line._replace(label=""),),
                stacked=False,
            )


def draw(section: str, chart: Chart, groups: Sequence[Group]) -> Drawing | None:
    """Draws one group's figures, or one figure of each group; None if there is nothing to draw."""
    from matplotlib.figure import Figure

    rows = _legend_rows(chart, groups)
    # Charts beside each other are of one height, unless they compare many settings.
    height_in = max(HEIGHT_IN, LEAST_PLOT_IN + TITLE_IN + rows * LEGEND_ROW_IN + AXIS_IN)
    figure = Figure(figsize=(WIDTH_IN, height_in))
    axes = figure.add_axes(
        (
            LEFT_IN / WIDTH_IN,
            AXIS_IN / height_in,
            1 - (LEFT_IN + RIGHT_IN) / WIDTH_IN,
            1 - (AXIS_IN + TITLE_IN + rows * LEGEND_ROW_IN) / height_in,
        )
    )
    if len(groups) == 1:
        shown = _draw_one_group(axes, chart, groups[0])
    else:
        shown = _draw_groups(axes, chart, groups)
    if not shown:
        return None
    if chart.limit is not None:
        _draw_limit(axes, chart.limit, groups[0].runs[0])
    _dress(axes, chart, shown)
    title = f"{chart.title}, {chart.axis_unit}" if chart.axis_unit else chart.title
    figure.text(0.02, 1 - 0.05 / height_in, title, va="top", weight="bold", size=9.5)
    if rows and axes.get_legend_handles_labels()[0]:
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(0.01, 1 - 0.8 * TITLE_IN / height_in),
            bbox_transform=figure.transFigure,
            ncols=1 if len(groups) > 1 else _legend_columns(chart),
        )
    label = f"{title}. {_description(shown, chart)}"
    svg, png = canvas.as_svg(figure), canvas.as_png(figure)
    return Drawing(chart.slug, section, chart.says, label, svg, png)


def _draw_one_group(axes: "Axes", chart: Chart, group: Group) -> list[tuple[str, Curve]]:
    """Draws each figure in a colour; several runs as their mean and a band, least to greatest."""
    curves = [
        (line.label, _scaled(curve, chart.factor))
        for line in chart.lines
        if (curve := curve_of(group.runs, line.name, chart.over, chart.from_start)) is not None
    ]
    if chart.stacked and curves:
        heights = [np.nan_to_num(curve.y) for _, curve in curves]
        axes.stackplot(
            curves[0][1].x,
            heights,
            labels=[label for label, _ in curves],
            colors=COLOURS,
            edgecolor=PAPER,
            linewidth=0.4,
        )
        return curves
    if chart.band is not None:
        _draw_band(axes, chart.band, chart, group.runs)
    if chart.dots is not None:
        _draw_dots(axes, chart.dots, chart, group.runs[0])
    for index, (label, curve) in enumerate(curves):
        _draw_curve(axes, curve, label, COLOURS[index % len(COLOURS)], STYLES[index % len(STYLES)])
    return curves


def _draw_groups(axes: "Axes", chart: Chart, groups: Sequence[Group]) -> list[tuple[str, Curve]]:
    """Draws one figure, each group in a colour of its own."""
    curves = []
    for index, (group, label) in enumerate(zip(groups, group_labels(groups), strict=True)):
        curve = curve_of(group.runs, chart.lines[0].name, chart.over, chart.from_start)
        if curve is not None:
            curve = _scaled(curve, chart.factor)
            style = STYLES[index // len(COLOURS) % len(STYLES)]
            _draw_curve(axes, curve, label, COLOURS[index % len(COLOURS)], style)
            curves.append((label, curve))
    return curves


def _draw_curve(axes: "Axes", curve: Curve, label: str, colour: str, style: str) -> None:
    present = np.isfinite(curve.y)
    x, y = curve.x[present], curve.y[present]
    if curve.low is not None and curve.high is not None:
        low, high = curve.low[present], curve.high[present]
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)
    marker = "o" if len(x) <= 2 else ""
    axes.plot(x, y, color=colour, label=label, linestyle=style, marker=marker)


def _draw_band(axes: "Axes", names: tuple[str, str], chart: Chart, runs: Sequence[Run]) -> None:
    """Draws a band between two figures of the records, a least and a greatest."""
    low, high = (curve_of(runs, name, chart.over) for name in names)
    if low is not None and high is not None:
        present = np.isfinite(low.y) & np.isfinite(high.y)
        axes.fill_between(
            low.x[present],
            low.y[present] * chart.factor,
            high.y[present] * chart.factor,
            color=COLOURS[0],
            alpha=0.15,
            linewidth=0,
            label="min to max",
        )


def _draw_dots(axes: "Axes", name: str, chart: Chart, run: Run) -> None:
    """Draws single episodes, spread evenly over those that a record stands for."""
    x, y = spread(run.records, name, chart.over)
    if len(x):
        every = -(-len(x) // DOTS)
        axes.plot(
            x[::every],
            y[::every],
            linestyle="",
            marker=".",
            markersize=3.0,
            markeredgewidth=0,
            color=COLOURS[1],
            alpha=0.7,
            label="an episode",
        )


def _limit(chart: Chart, runs: Sequence[Run]) -> tuple[str | float, str] | None:
    """The chart's limit, if it is a number and the same in all runs."""
    if chart.limit is None:
        return None
    found = {_level(chart.limit[0], run) for run in runs}
    return chart.limit if len(found) == 1 and np.isfinite(number_or_nan(*found)) else None


def _level(key: str | float, run: Run) -> float:
    """The number, or the run's setting of that key; NaN where that is none."""
    return number_or_nan(run.settings.get(key) if isinstance(key, str) else key)


def _draw_limit(axes: "Axes", limit: tuple[str | float, str], run: Run) -> None:
    """Draws the setting that bounds the figure."""
    key, words = limit
    value = _level(key, run)
    style, label = (0, (4, 3)), f"{words} {short(value)}"
    axes.axhline(value, color=MUTED, linewidth=0.8, linestyle=style, label=label)


def _dress(axes: "Axes", chart: Chart, shown: Sequence[tuple[str, Curve]]) -> None:
    """Sets the scales, the ticks and the grid."""
    values = np.concatenate([curve.y[np.isfinite(curve.y)] for _, curve in shown])
    if chart.may_be_log and values.min() > 0 and values.max() > LOG_BEYOND * values.min():
        from matplotlib.ticker import LogLocator

        axes.set_yscale("log")
        few = values.max() < 1000 * values.min()
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if few else (1,)))
    elif chart.from_zero and values.min() >= 0:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(OVER[chart.over], labelpad=2)
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.yaxis.set_major_formatter(lambda value, _: short(value))
    axes.yaxis.set_minor_formatter(lambda value, _: "")
    axes.locator_params(axis="x", nbins=5)
    if axes.get_yscale() == "linear":
        counts = bool((values == np.round(values)).all())
        axes.locator_params(axis="y", nbins=5, integer=counts)


def _legend_rows(chart: Chart, groups: Sequence[Group]) -> int:
    """The number of rows of the legend; none for a single line."""
    if len(groups) > 1:
        return len(groups) + (chart.limit is not None)
    entries = _legend_entries(chart)
    return -(-entries // _legend_columns(chart)) if entries > 1 else 0


def _legend_columns(chart: Chart) -> int:
    return 2 if _legend_entries(chart) == 4 else 3


def _legend_entries(chart: Chart) -> int:
    return len(chart.lines) + sum(x is not None for x in (chart.limit, chart.band, chart.dots))


def _description(shown: Sequence[tuple[str, Curve]], chart: Chart) -> str:
    """Each line's range and end, for readers who cannot see the chart."""
    ranges = []
    for label, curve in shown:
        y = curve.y[np.isfinite(curve.y)]
        ranges.append(
            f"{label + ': ' if label else ''}from {short(y.min())} to {short(y.max())}, "
            f"at the end {short(y[-1])}"
        )
    return f"Over {OVER[chart.over]}; " + "; ".join(ranges) + "."


def _scaled(curve: Curve, factor: float) -> Curve:
    def scaled(column: Column | None) -> Column | None:
        return None if column is None else column * factor

    return Curve(curve.x, curve.y * factor, scaled(curve.low), scaled(curve.high))
