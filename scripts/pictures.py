"""Draws the README's two pictures from real trainings of the preset `cartpole`.

    .venv/bin/python scripts/pictures.py [--seeds 5] [--output docs/figures]

`terminal.svg` is what impala-train shows in a terminal while it trains: its own bytes, read from a
pseudo-terminal. `cartpole.svg` is the mean return over frames, one line for each seed. It needs the
packages of `scripts/setup.sh report`. Runs go to `runs/pictures`, and are made again each time.
"""

import argparse
import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import tempfile
import termios
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text

from bench.trials import TRAIN, train
from impala_redis.common.records.history import Run, series

RUNS = Path("runs/pictures")
PRESET = ["--preset", "cartpole"]
GOAL = 475.0
COLUMNS, LINES = 96, 30
COLOUR = "#0072b2"

# Rich moves the cursor up, line by line, before it draws the panel again.
REDRAWN = re.compile(r"\r(?:\x1b\[2K)?(?:\x1b\[1A\x1b\[2K)+")
# Escape sequences that move or hide the cursor; those that end in m are colours.
MOVES = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")

# Rich's own format refers to a font on a server; a picture must show without a network.
SVG = """<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg">
<style>
.{unique_id}-matrix {{ font-family: monospace;
font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs><clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}" /></clipPath>{lines}</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""


class Shown(NamedTuple):
    """What a terminal has shown: the lines that stay, and each drawing of the panel below them."""

    lines: str
    panels: list[str]


def record(command: list[str]) -> str:
    """The bytes that a command writes to a terminal. Raises CalledProcessError."""
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    # With the programs on PATH they are named as a reader types them.
    path = f"{TRAIN.parent}{os.pathsep}{os.environ['PATH']}"
    variables = os.environ | {"TERM": "xterm-256color", "COLUMNS": str(COLUMNS), "PATH": path}
    written = bytearray()
    with subprocess.Popen(
        command, stdin=follower, stdout=follower, stderr=follower, env=variables
    ) as process:
        os.close(follower)
        try:
            while data := os.read(leader, 65_536):
                written += data
        except OSError:  # Linux says EIO when the last writer has closed its side
            pass
    os.close(leader)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, bytes(written))
    return written.decode().replace("\r\n", "\n")


def split(written: str) -> Shown:
    """Takes the drawings of the panel apart."""
    drawings = REDRAWN.split(written)
    head, box, first = drawings[0].partition("╭")
    panels = [box + first, *drawings[1:]]
    lines = head.rpartition("\n")[0]
    return Shown(MOVES.sub("", lines), [MOVES.sub("", p).strip() for p in panels if "╰" in p])


def draw_terminal(shown: Shown, path: Path) -> None:
    """Draws the panel as it was after three quarters of the training."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text("$ impala-train --preset cartpole", style="bold"))
    console.print(Text.from_ansi(shown.lines))
    console.print(Text.from_ansi(shown.panels[len(shown.panels) * 3 // 4]))
    svg = console.export_svg(
        title="impala-train", theme=MONOKAI, code_format=SVG, unique_id="terminal"
    )
    path.write_text(svg, encoding="utf-8")


def draw_curves(runs: list[Run], path: Path) -> None:
    """Draws the mean return of the last 100 episodes over frames, a line for each run."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "impala-redis"
    figure = Figure(figsize=(7.2, 2.8), layout="constrained")
    axes = figure.subplots()
    for run in runs:
        frames, returns = series(run.records, "mean_return_100")
        axes.plot(frames / 1e3, returns, color=COLOUR, alpha=0.7, linewidth=1.3)
    axes.axhline(GOAL, color="#6a737d", linewidth=0.9, linestyle=":")
    axes.text(0, GOAL - 8, "solved: 475", color="#6a737d", fontsize=8, va="top")
    axes.set_title(f"CartPole-v1, preset cartpole, {len(runs)} seeds", fontsize=9)
    axes.set_xlabel("frames trained on, thousands", fontsize=9)
    axes.set_ylabel("mean return, last 100 episodes", fontsize=9)
    axes.set_xlim(left=0)
    axes.set_ylim(0, 510)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """Trains, and draws both pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("docs/figures"))
    options = parser.parse_args()

    shutil.rmtree(RUNS, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder:
        # In a folder of its own, so that the run directory has the name that a reader's has.
        written = record(["env", "-C", folder, str(TRAIN), *PRESET])
    draw_terminal(split(written), options.output / "terminal.svg")
    often = [*PRESET, "--log-interval-s", "0.02"]  # the curve of a second needs many points
    runs = [train(RUNS / f"seed{seed}", seed, often) for seed in range(options.seeds)]
    draw_curves(runs, options.output / "cartpole.svg")


if __name__ == "__main__":
    main()
