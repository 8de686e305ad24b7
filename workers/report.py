"""impala-report: run directories in, one HTML page out that needs nothing else, and PNGs beside it.

One run is reported in full; several are laid over each other, those of the same settings as their
mean and spread.
"""

import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from impala_redis.common.errors import EXIT_INTERRUPTED, ConfigError, RunDirectoryError, printable
from impala_redis.common.files import make_folder, write_atomically
from impala_redis.common.records.history import Group, grouped, read_run
from impala_redis.workers import saying, stopping
from impala_redis.workers.command import Program
from impala_redis.workers.options import CONTEXT, shared

if TYPE_CHECKING:
    from impala_redis.workers.reporting.charts import Drawing

log = logging.getLogger(__name__)


@click.command(cls=Program, context_settings=CONTEXT)
@click.argument(
    "run_dirs", metavar="RUN_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    show_envvar=True,
    show_default="report.html in the RUN_DIR; of several, overlay.html in the directory that they "
    "have in common",
    help="The page. The charts go as PNGs into a folder beside it: of x.html it is x-charts. PNGs "
    "that an earlier report has left there are removed.",
)
@shared("log-level")
def main(run_dirs: tuple[Path, ...], output: Path | None, log_level: str) -> None:
    """Writes a report of a run, or of several runs laid over each other.

    The page is one file that needs no network and no JavaScript.
    """
    stopping.set_up_logging(log_level, "report")
    stop = stopping.StopFlag()
    stop.end_within_s = stopping.END_WITHIN_S
    with stopping.exit_codes(stop):
        once = different(run_dirs)
        page = output or default_page(once)
        if page.suffix.lower() not in (".html", ".htm"):
            raise ConfigError(f"--output must name a file that ends in .html, not {page.name!r}")
        runs = [read_run(path) for path in once]
        groups = grouped(runs)
        drawings = drawn(groups, stop)
        html = rendered(groups, drawings)
        write(page, html, drawings)
        saying.say(
            f"report: {printable(page)} ({len(drawings)} charts, as PNGs in "
            f"{printable(charts_of(page))})"
        )


def different(run_dirs: Sequence[Path]) -> list[Path]:
    """The directories, each of them once, even if several names lead to it."""
    by_place: dict[str, Path] = {}
    for path in run_dirs:
        by_place.setdefault(os.path.realpath(path), path)
    return list(by_place.values())


def default_page(run_dirs: Sequence[Path]) -> Path:
    """The place of a page: in the run's directory, or for several runs beside their directories."""
    if len(run_dirs) == 1:
        return run_dirs[0] / "report.html"
    above = os.path.commonpath([os.path.normpath(Path.cwd() / path / "..") for path in run_dirs])
    return Path(os.path.relpath(above)) / "overlay.html"


def charts_of(page: Path) -> Path:
    """The folder of a page's PNGs."""
    return page.with_name(f"{page.stem}-charts")


def drawn(groups: Sequence[Group], stop: Callable[[], bool]) -> list["Drawing"]:
    """Every chart.

    Raises ConfigError when what draws it is not installed, RunDirectoryError when it finds no place
    for its settings.
    """
    from impala_redis.workers.reporting import charts

    drawings = []
    try:
        for drawing in charts.draw_all(groups):
            drawings.append(drawing)
            if stop():
                raise SystemExit(EXIT_INTERRUPTED)
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    except OSError as error:  # of matplotlib: what is drawn has been read
        raise RunDirectoryError(
            "the charts need a folder for matplotlib's settings, and neither the home nor a "
            "temporary directory can be written; set MPLCONFIGDIR to one that can"
        ) from error
    return drawings


def rendered(groups: Sequence[Group], drawings: Sequence["Drawing"]) -> str:
    """The page. Raises ConfigError when what fills the template is not installed."""
    try:
        from impala_redis.workers.reporting.template import filled
    except ModuleNotFoundError as error:
        raise _not_installed(error) from error
    return filled(groups, drawings)


def _not_installed(error: ModuleNotFoundError) -> ConfigError:
    return ConfigError(
        f"a report needs {error.name}, which is not installed; run: pip install "
        '"impala-redis[report]" (in a checkout: scripts/setup.sh report)'
    )


def write(page: Path, html: str, drawings: Sequence["Drawing"]) -> None:
    """Writes page and PNGs, and removes those of an earlier one. Raises RunDirectoryError."""
    from impala_redis.workers.reporting.words import is_slug

    folder = charts_of(page)
    try:
        make_folder(folder)
        for old in folder.glob("*.png"):
            if is_slug(old.stem):
                old.unlink()
        for drawing in drawings:
            write_atomically(folder / f"{drawing.slug}.png", drawing.png)
        # Names may hold what UTF-8 cannot encode.
        write_atomically(page, html.encode(errors="replace"))
    except OSError as error:
        raise RunDirectoryError(
            f"the report cannot be written to {printable(page)} ({error.strerror}); name another "
            "file with --output"
        ) from error


if __name__ == "__main__":
    main()
