"""Writes the parts of documentation pages that come from tables in the code, or from measurements.

    .venv/bin/python scripts/write_docs.py

A part lies between `<!-- NAME: ... -->` and `<!-- /NAME -->`. Prints the pages that it has changed;
a test holds that there are none.
"""

import itertools
import re
from collections.abc import Callable
from pathlib import Path

import measure

from impala_redis.common.records import figures
from impala_redis.common.run.config import settings
from impala_redis.common.transport.functions import NEEDS, commands_inside
from impala_redis.workers.setting_options import shown

ROOT = Path(__file__).resolve().parents[1]


def figures_tables() -> str:
    """A table for each group of figures."""
    lines: list[str] = []
    for group, rows in itertools.groupby(figures.rows(), key=lambda row: row[0].group):
        lines += [f"## {group}", "", "| figure | unit | what |", "|---|---|---|"]
        for row in rows:
            names = ", ".join(f"`{figure.name}`" for figure in row)
            lines.append(" ".join(f"| {names} | {row[0].unit} | {row[0].meaning} |".split()))
        lines.append("")
    return "\n".join(lines)


def settings_tables() -> str:
    """A table for each group of settings: the option, its default, and its help."""
    lines: list[str] = []
    for group, members in itertools.groupby(settings(), key=lambda setting: setting.group):
        lines += [f"**{group}**", "", "| option | default | what |", "|---|---|---|"]
        for setting in members:
            choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
            is_told = "none:" in setting.help
            off = "; `none` turns it off" if setting.optional and not is_told else ""
            option = f"`--{setting.key.replace('_', '-')}`"
            default = shown(setting.default) or "empty"
            lines.append(f"| {option} | {default} | {setting.help}{choices}{off} |")
        lines.append("")
    return "\n".join(lines)


def commands_table() -> str:
    """A row for each program: the commands that it sends, and those inside of the functions."""
    lines = ["| program | sends | inside of the functions that it calls |", "|---|---|---|"]
    for program, needs in NEEDS.items():
        # Each once: some are asked for with several keys.
        sends = ["CLIENT SETNAME", *dict.fromkeys(n.partition(" ")[0] for n in needs.sends)]
        inside = sorted({name for function in needs.calls for name in commands_inside(function)})
        cells = [", ".join(f"`{name}`" for name in names) for names in (sends, inside)]
        lines.append(f"| `{program}` | {' | '.join(cells)} |")
    return "\n".join(lines)


# The generated parts: page, name of the part, and what writes it.
PARTS: tuple[tuple[str, str, Callable[[], str]], ...] = (
    ("docs/metrics.md", "figures", figures_tables),
    ("docs/reference.md", "settings", settings_tables),
    ("SECURITY.md", "commands", commands_table),
)
MEASURED_PAGE = "docs/performance.md"


def measured_parts() -> dict[str, str]:
    """The tables of what was measured and kept, by the names of their parts."""
    tables = {name: measure.table_of(name) for name in measure.TABLES}
    return {name: table for name, table in tables.items() if table is not None}


def rewritten(page: str, name: str, part: str) -> str:
    """The page with that part between its marks. Raises ValueError if it has no marks."""
    marked = re.compile(rf"(<!-- {name}: [^>]*-->\n).*(<!-- /{name} -->)", re.DOTALL)
    if not marked.search(page):
        raise ValueError(f"the page has no marks for {name}")
    return marked.sub(lambda found: f"{found[1]}\n{part.strip()}\n\n{found[2]}", page)


def main() -> None:
    """Writes every part."""
    parts = [(file, name, write()) for file, name, write in PARTS]
    parts += [(MEASURED_PAGE, name, table) for name, table in measured_parts().items()]
    for file, name, part in parts:
        page = (ROOT / file).read_text(encoding="utf-8")
        new = rewritten(page, name, part)
        if new != page:
            (ROOT / file).write_text(new, encoding="utf-8")
            print(f"{file}: {name}")


if __name__ == "__main__":
    main()
