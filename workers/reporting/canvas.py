"""Matplotlib as the report uses it: its style, and a figure as SVG for the page and as PNG."""

import io
import logging
import os
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PNG_DPI = 160

# In the page these become variables, one value for light paper and one for a dark screen.
INK, MUTED, GRID, PAPER = "#2b3138", "#6a737d", "#dfe3e8", "#fefefe"
VARIABLES = {INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--grid)", PAPER: "var(--paper)"}


def as_svg(figure: "Figure") -> str:
    """The drawing as an element of an HTML page: no names, no addresses, colours by variables."""
    file = io.StringIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' (xmlns(:xlink)?|version)="[^"]*"', "", svg).replace("xlink:href", "href")
    svg = re.sub(r'<svg ([^>]*?)width="[^"]*" height="[^"]*"', r"<svg \1", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg)
    svg = re.sub(r"<[^>]+>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, variable)
    return re.sub(r"\n\s*", "\n", svg)


def as_png(figure: "Figure") -> bytes:
    """The drawing as the content of a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=PNG_DPI, metadata={"Software": None})
    return file.getvalue()


def load() -> None:
    """Imports matplotlib and undoes the user's own settings of it. Raises ImportError."""
    os.environ["MPLBACKEND"] = "agg"  # an unknown one would fail the import
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # a home that cannot be written
    import matplotlib

    matplotlib.rcdefaults()
    matplotlib.rcParams.update(
        {
            "text.parse_math": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "impala-report",
            "font.size": 8.5,
            "axes.labelsize": 8.5,
            "legend.fontsize": 8,
            "legend.frameon": False,
            "legend.borderpad": 0.1,
            "legend.borderaxespad": 0.2,
            "legend.handlelength": 1.4,
            "legend.handletextpad": 0.4,
            "legend.columnspacing": 0.9,
            "legend.labelspacing": 0.2,
            "lines.linewidth": 1.3,
            "lines.markersize": 3.0,
            "text.color": INK,
            "legend.labelcolor": INK,
            "axes.labelcolor": MUTED,
            "axes.edgecolor": MUTED,
            "axes.linewidth": 0.6,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "axes.axisbelow": True,
            "axes.xmargin": 0.01,
            "grid.color": GRID,
            "grid.linewidth": 0.6,
            "xtick.color": MUTED,
            "ytick.color": MUTED,
            "xtick.labelsize": 8,
            "ytick.labelsize": 8,
            "xtick.major.size": 2.5,
            "ytick.major.size": 2.5,
            "xtick.major.width": 0.6,
            "ytick.major.width": 0.6,
            "figure.facecolor": PAPER,
            "axes.facecolor": PAPER,
            "path.simplify": True,
        }
    )
