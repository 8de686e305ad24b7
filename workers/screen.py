"""The screen of impala-status --watch: the whole terminal, redrawn, and given back at the end.

Texts come from Redis: none is read as markup.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from impala_redis.common.errors import printable
from impala_redis.common.transport.replies import whole_number
from impala_redis.common.transport.situation import behind

LABELS = 8
# A verdict's colour by its first words; the other verdicts stop the run, now or soon.
COLOURS = {"balanced": "green", "the run is finished": "green", "not enough": "dim"}
BOUND, STOPPED = "yellow", "red"
NAMES = ("actor", "host", "pid")
COLUMNS = ("host", "pid", "frames/s", "version", "behind", "shed")
NARROW = 60  # a terminal with fewer columns has no room for all of them

Heartbeat = Mapping[str, str]  # an actor's figures


class Screen:
    """A terminal that shows a status; `with` takes it over and gives it back, whatever happens."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(highlight=False)
        # Only `show` redraws: a thread that draws by itself would show nothing new.
        self._live = Live(console=self._console, screen=True, auto_refresh=False)

    def __enter__(self) -> "Screen":
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(
        self, rows: Sequence[tuple[str, str]], status: dict[str, Any], trouble: str | None
    ) -> None:
        """Draws the rows and as many actors as there is room for; `trouble` outranks a verdict."""
        width, height = self._console.size
        head = _head(rows, trouble)
        used = len(self._console.render_lines(head, pad=False))
        actors = _actors(status, room=height - used, width=width)
        self._live.update(Group(head, actors), refresh=True)


def _head(rows: Sequence[tuple[str, str]], trouble: str | None) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=LABELS, no_wrap=True, style="dim")
    grid.add_column(overflow="fold")
    for label, text in rows:
        if label == "verdict" and trouble:
            grid.add_row(
                "trouble", Text(f"{printable(trouble)}; last figures below", style="bold red")
            )
        else:
            grid.add_row(label, Text(printable(text), style=_style(label, text)))
    return grid


def _style(label: str, text: str) -> str:
    if label == "verdict":
        return f"bold {_colour(text)}"
    return {"run": "bold", "ALARM": "bold red", "notice": "yellow"}.get(label, "")


def _colour(verdict: str) -> str:
    for beginning, colour in COLOURS.items():
        if verdict.startswith(beginning):
            return colour
    return BOUND if "-bound:" in verdict else STOPPED


def _actors(status: dict[str, Any], room: int, width: int) -> RenderableType:
    """A line for each actor, or for the slowest ones when there are more actors than lines."""
    actors, version = status["actors"], status["learner"]["weights_version"]
    if not actors or room < 2:
        return Text("")
    shown, rest = _that_fit(actors, room - 1)  # the titles take a line
    columns = _columns(actors, width)
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim")
    for title in columns:
        right = title not in NAMES
        table.add_column(
            title, justify="right" if right else "left", no_wrap=True, overflow="ellipsis"
        )
    for name in shown:
        cells = _cells(name, actors[name], version)
        table.add_row(*(Text(printable(cells[title])) for title in columns))
    return Group(table, Text(rest, style="dim")) if rest else table


def _that_fit(actors: Mapping[str, Heartbeat], lines: int) -> tuple[list[str], str]:
    """The names of the actors to show, and words for the rest."""
    if len(actors) <= lines:
        return sorted(actors), ""
    slowest = sorted(actors, key=lambda name: (_rate(actors[name]), name))
    shown = slowest[: lines - 1]  # the words take a line
    return shown, f"and {len(actors) - len(shown)} more; these are the slowest"


def _columns(actors: Mapping[str, Heartbeat], width: int) -> list[str]:
    """The columns that fit; names that only repeat host and pid are left out."""
    if width < NARROW:
        return ["actor", "frames/s", "behind", "shed"]
    named = any(name != f"{a.get('host')}-{a.get('pid')}" for name, a in actors.items())
    return [*(["actor"] if named else []), *COLUMNS]


def _cells(name: str, actor: Heartbeat, version: int) -> dict[str, str]:
    loaded = whole_number(actor.get("weights_version"), 0)
    return {
        "actor": name,
        "host": actor.get("host", "?"),
        "pid": actor.get("pid", "?"),
        "frames/s": f"{_rate(actor):,}",
        "version": f"{loaded:,}",
        "behind": f"{behind(actor, version):,}",
        "shed": f"{whole_number(actor.get('shed_local'), 0):,}",
    }


def _rate(actor: Heartbeat) -> int:
    return whole_number(actor.get("frames_per_s"), 0)
