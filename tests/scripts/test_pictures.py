"""scripts/pictures.py: a panel is found among a terminal's bytes, and drawn without addresses."""

import sys
from pathlib import Path

import pytest

from support import ROOT

UP = "\r\x1b[2K\x1b[1A\x1b[2K\x1b[1A\x1b[2K"
WRITTEN = (
    "training CartPole-v1\nthe queue: redis-cli\n\x1b[?25l╭─ starting ─╮\n│ - │\n╰──╯"
    f"{UP}╭─ 1 s ─╮\n│ \x1b[35m━━\x1b[0m │\n╰──╯{UP}╭─ 2 s ─╮\n│ 475 │\n╰──╯"
    "\n\x1b[?25h\r\x1b[1A\x1b[2K\x1b[1A\x1b[2Ksolved: mean return 475.0\n"
)


@pytest.fixture(autouse=True)
def scripts_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")


def test_lines_and_panels_are_taken_apart() -> None:
    import pictures

    shown = pictures.split(WRITTEN)
    assert shown.lines == "training CartPole-v1\nthe queue: redis-cli"
    assert [panel.split(" ")[1] for panel in shown.panels] == ["starting", "1", "2"]
    assert "\x1b[35m━━\x1b[0m" in shown.panels[1]


def test_a_terminal_is_drawn_without_addresses(tmp_path: Path) -> None:
    import pictures

    pictures.draw_terminal(pictures.split(WRITTEN), tmp_path / "terminal.svg")
    svg = (tmp_path / "terminal.svg").read_text(encoding="utf-8")
    assert "CartPole-v1" in svg and "475" in svg
    assert "http" not in svg.replace("http://www.w3.org/", "")


def test_what_a_command_writes_to_a_terminal_is_recorded() -> None:
    import pictures

    program = "import os, sys; print(os.isatty(1), os.get_terminal_size().columns)"
    assert pictures.record([sys.executable, "-c", program]) == f"True {pictures.COLUMNS}\n"
