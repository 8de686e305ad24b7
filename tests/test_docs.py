"""The README tells the truth about commands, options, settings, keys and exit codes."""

import importlib
import inspect
import re
from pathlib import Path

import click
import pytest

from common import errors
from common.config import PRESETS, settings
from common.transport import Keys
from workers.options import shown

ROOT = Path(__file__).parent.parent
RELIABILITY = (ROOT / "docs" / "reliability.md").read_text()
README = (ROOT / "README.md").read_text()
COMMANDS = {
    "impala-actor": "workers.actor",
    "impala-eval": "workers.evaluator",
    "impala-learner": "workers.learner",
    "impala-status": "workers.status",
    "impala-train": "workers.train",
}


def command_of(name: str) -> click.Command:
    command = importlib.import_module(COMMANDS[name]).main
    assert isinstance(command, click.Command)
    return command


def settings_table() -> str:
    """The table that the README must hold."""
    lines = []
    groups = list(dict.fromkeys(setting.group for setting in settings()))
    for group in groups:
        lines += [f"**{group}**", "", "| option | default | what |", "|---|---|---|"]
        for setting in settings():
            if setting.group == group:
                choices = f" ({', '.join(setting.choices)})" if setting.choices else ""
                off = "; `none` turns it off" if setting.optional else ""
                option = f"`--{setting.key.replace('_', '-')}`"
                what = f"{setting.help}{choices}{off}"
                lines.append(f"| {option} | {shown(setting.default)} | {what} |")
        lines.append("")
    return "\n".join(lines)


def test_the_settings_table_is_the_configs() -> None:
    found = re.search(r"<!-- settings:.*?-->\n(.*)<!-- /settings -->", README, re.DOTALL)
    assert found is not None
    assert found.group(1).strip() == settings_table().strip()


def test_every_command_stands_in_setup_cfg_and_in_the_readme() -> None:
    setup = (ROOT / "setup.cfg").read_text()
    scripts = dict(re.findall(r"^\s+(impala-\w+) = ([\w.]+):main$", setup, re.MULTILINE))
    assert scripts == COMMANDS
    for name in COMMANDS:
        assert f"| `{name}` |" in README


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_a_variable(name: str) -> None:
    command = command_of(name)
    assert command.help
    for option in command.params:
        assert isinstance(option, click.Option)
        assert option.help, option.name
        assert option.show_envvar, option.name


@pytest.mark.parametrize("name", COMMANDS)
def test_long_options_come_in_both_spellings(name: str) -> None:
    for option in command_of(name).params:
        for spelling in option.opts:
            if "-" in spelling.lstrip("-"):
                assert "--" + spelling.lstrip("-").replace("-", "_") in option.opts


@pytest.mark.parametrize("name", ["impala-learner", "impala-train"])
def test_every_setting_is_an_option(name: str) -> None:
    options = {spelling for option in command_of(name).params for spelling in option.opts}
    for setting in settings():
        assert f"--{setting.key.replace('_', '-')}" in options


def test_every_exit_code_is_listed() -> None:
    classes = [
        item
        for _, item in inspect.getmembers(errors, inspect.isclass)
        if issubclass(item, errors.ImpalaError) and "exit_code" in vars(item)
    ]
    codes = {item.exit_code for item in classes}
    codes |= {0, errors.EXIT_INTERRUPTED, errors.EXIT_LEARNER_KILLED, errors.EXIT_HUNG}
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert listed == codes
    assert len({item.exit_code for item in classes}) == len(classes)


def test_every_key_and_preset_is_listed() -> None:
    for name in ("trajectories", "inflight", "weights", "spec", "stats", "seq", "epoch", "lock"):
        assert f"| `{name}` |" in README
        assert getattr(Keys("cartpole"), name) == f"impala:{{cartpole}}:{name}"
    for preset in PRESETS:
        assert f"| `{preset}` |" in README


def test_every_file_that_the_readme_links_to_exists() -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_every_row_of_the_fault_matrix_has_its_tests() -> None:
    # given the rows that tests are marked with
    marked: dict[int, set[str]] = {}
    for path in (ROOT / "tests").glob("test_*.py"):
        for row in re.findall(r"(?:mark|pytest\.mark)\.fault\((\d+)\)", path.read_text()):
            marked.setdefault(int(row), set()).add(path.name)
        # rows of a parametrised mark stand in a tuple
        for rows in re.findall(r"fault\(row\)\) for row in \(([\d, ]+)\)", path.read_text()):
            for row in rows.split(","):
                marked.setdefault(int(row), set()).add(path.name)

    # then the page names, for each of them, the files in which it is tested
    lines = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", RELIABILITY, re.MULTILINE)
    named = {int(row): set(re.findall(r"`(test_\w+\.py)`", files)) for row, files in lines}
    assert sorted(named) == list(range(1, 53))
    assert {row: files - marked.get(row, set()) for row, files in named.items()} == {
        row: set() for row in named
    }
