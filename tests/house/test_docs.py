"""README and docs/ are true of commands, options, settings, keys, exit codes, files and names."""

import ast
import importlib
import inspect
import re
import subprocess
import sys
from collections.abc import Iterable
from functools import cache

import click
import pytest

from impala_redis.common import errors
from impala_redis.common.presets.table import PRESETS
from impala_redis.common.run.config import settings
from impala_redis.common.transport.keys import Keys
from support import ROOT

RELIABILITY = (ROOT / "docs" / "reliability.md").read_text()
REFERENCE = (ROOT / "docs" / "reference.md").read_text()
README = (ROOT / "README.md").read_text()
README_LINES = 200  # a newcomer reads it to its end
COMMANDS = {
    "impala-actor": "impala_redis.workers.actor",
    "impala-eval": "impala_redis.workers.evaluator",
    "impala-learner": "impala_redis.workers.learner",
    "impala-report": "impala_redis.workers.report",
    "impala-status": "impala_redis.workers.status",
    "impala-train": "impala_redis.workers.train",
}


def command_of(name: str) -> click.Command:
    command = importlib.import_module(COMMANDS[name]).main
    assert isinstance(command, click.Command)
    return command


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
        if isinstance(option, click.Argument):
            continue  # the usage line shows it
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
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", REFERENCE, re.MULTILINE)}
    assert listed == codes
    assert len({item.exit_code for item in classes}) == len(classes)


def test_every_key_and_preset_is_listed() -> None:
    for name in ("trajectories", "inflight", "weights", "spec", "stats", "seq", "epoch", "lock"):
        assert f"| `{name}` |" in REFERENCE
        assert getattr(Keys("cartpole"), name) == f"impala:{{cartpole}}:{name}"
    for page in (README, REFERENCE):
        listed = re.findall(r"^\| `([a-z0-9-]+)` \|", section_of(page, "Presets"), re.MULTILINE)
        assert sorted(listed) == sorted(PRESETS)


def section_of(page: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {heading}\n(.*?)(?=^#+ |\Z)", page, re.DOTALL | re.MULTILINE)
    assert found is not None, heading
    return found.group(1)


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= README_LINES


def test_the_readmes_list_of_the_code_is_the_folders() -> None:
    # given the part of the list between the library and the scripts
    library = section_of(README, "The code").partition("common/  ")[2].partition("scripts/")[0]

    # then it names each package and each file of common/, and no other
    common = ROOT / "common"
    packages = {f"{path.parent.name}/" for path in common.glob("*/__init__.py")}
    files = {path.name for path in common.glob("*.py")} - {"__init__.py"}
    listed = re.findall(r"(?:^|  )([a-z_]+(?:/|\.py))", library, re.MULTILINE)
    assert sorted(listed) == sorted(packages | files)


def test_every_row_of_the_fault_matrix_has_its_tests() -> None:
    # given the rows that tests are marked with
    marked: dict[int, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for row in re.findall(r"(?:mark|pytest\.mark)\.fault\((\d+)\)", path.read_text()):
            marked.setdefault(int(row), set()).add(path.name)
        # rows of a parametrised mark stand in a tuple
        for rows in re.findall(r"fault\(row\)\) for row in \(([\d, ]+)\)", path.read_text()):
            for row in rows.split(","):
                marked.setdefault(int(row), set()).add(path.name)

    # then the page names, for each of them, the files in which it is tested
    lines = re.findall(r"^\| (\d+) \|.*\| ([^|]+) \|$", RELIABILITY, re.MULTILINE)
    named = {int(row): set(re.findall(r"`(test_\w+\.py)`", files)) for row, files in lines}
    assert sorted(named) == list(range(1, len(named) + 1))
    assert {row: files - marked.get(row, set()) for row, files in named.items()} == {
        row: set() for row in named
    }

    # and other pages count them
    how_it_works = (ROOT / "docs" / "how-it-works.md").read_text(encoding="utf-8")
    assert f"[tests for {len(named)} faults](docs/reliability.md)" in README
    assert f"[reliability.md](reliability.md) has all {len(named)} of them" in how_it_works


# The README and the pages in docs/.

PATHS = [ROOT / "README.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").glob("*.md"))]
PAGES = {path.name: path.read_text() for path in PATHS}
FOLDERS = {path.name: path.parent for path in PATHS}
MAPPING = "settings-of-other-projects.md"
SOURCES = [path for folder in ("common", "workers") for path in (ROOT / folder).rglob("*.py")]
# Options of Redis, Docker, pip, OpenSSL and torchrun, and names in examples.
NOT_OURS = {"--scan", "--pattern", "my_package", "my_networks", "impala-redis", "value_mean"} | {
    "impala-population",  # keys begin so
    *("--cluster", "--cluster-only-masters", "decode_responses", "max_connections"),
    *("--maxmemory-policy", "--tls", "--cacert", "--user", "--scale", "--index-url"),
    *("--standalone", "--nproc-per-node", "--nnodes", "--max-restarts", "--no-python"),
    *("--rdzv-id", "--rdzv-backend", "--rdzv-endpoint"),
    *("ec_paramgen_curve", "usr_cert", "sutton_barto_reward", "xml_file"),
}


def without_their_names(page: str) -> str:
    """A page without what is another project's: the first column of the mapping's tables."""
    text = PAGES[page]
    return re.sub(r"^\|[^|]*\|", "|", text, flags=re.MULTILINE) if page == MAPPING else text


def code_spans(text: str) -> list[str]:
    """What stands in backticks or in a fenced block."""
    fenced = re.findall(r"^ *```\w*\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    rest = re.sub(r"^ *```.*?^ *```", "", text, flags=re.DOTALL | re.MULTILINE)
    return fenced + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", rest)]


def installed_commands() -> dict[str, click.Command]:
    setup = (ROOT / "setup.cfg").read_text()
    scripts = re.findall(r"^\s+(impala-\w+) = ([\w.]+):main$", setup, re.MULTILINE)
    return {name: importlib.import_module(module).main for name, module in scripts}


def options_of(commands: Iterable[click.Command]) -> set[str]:
    parameters = [parameter for command in commands for parameter in command.params]
    return {name for item in parameters for name in (*item.opts, *item.secondary_opts)}


def constants() -> list[str]:
    """Every text in the code, those of f-strings in their parts."""
    trees = [ast.parse(path.read_text()) for path in SOURCES]
    nodes = (node for tree in trees for node in ast.walk(tree))
    return [n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)]


@cache
def words_of_the_code() -> set[str]:
    """Every name and word in it, and every setting."""
    code = " ".join(
        path.read_text() for path in [*SOURCES, ROOT / "common" / "transport" / "functions.lua"]
    )
    return set(re.findall(r"[A-Za-z_]\w*", code)) | {setting.key for setting in settings()}


def slug(heading: str) -> str:
    """The anchor that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES)
def test_every_command_and_option_on_a_page_exists(page: str) -> None:
    commands, text = installed_commands(), without_their_names(page)
    tree = (ROOT / "scripts").rglob("*.*")
    scripts = [path for path in tree if path.suffix != ".pyc"]
    scripts += (ROOT / "tests" / "chaos").glob("*.py")
    theirs = {
        option
        for path in scripts
        if path.is_file()
        for option in re.findall(r"--[a-z][a-z-]*", path.read_text())
    }
    known = options_of(commands.values()) | theirs | {"--help", "--version"} | NOT_OURS
    assert set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text)) - known == set()
    named = {name for span in code_spans(text) for name in re.findall(r"\bimpala-[a-z]+", span)}
    assert named - set(commands) - NOT_OURS == set()
    presets = set(re.findall(r"--preset ([a-z][\w-]*)", text))
    assert presets <= set(PRESETS)


@pytest.mark.parametrize("page", PAGES)
def test_every_file_and_heading_that_a_page_links_to_exists(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        name, _, anchor = target.partition("#")
        path = (FOLDERS[page] / (name or page)).resolve()
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
            assert anchor in map(slug, headings), target


@pytest.mark.parametrize("page", PAGES)
def test_every_file_of_ours_that_a_page_names_exists(page: str) -> None:
    folders = "common|workers|scripts|tests|docs|docker"
    named = re.findall(rf"(?<![\w/])((?:{folders})/[\w/.-]*\w)", PAGES[page])
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_name_in_the_code_that_a_page_uses_is_there(page: str) -> None:
    words = words_of_the_code()
    spans = " ".join(code_spans(without_their_names(page)))
    named = re.findall(r"(?<![\w./-])[a-z]+(?:_[a-z0-9]+)+(?![\w/.(-])", spans)
    unknown = {name for name in named if not {name, re.sub(r"\d+$", "", name)} & words}
    assert unknown - NOT_OURS == set()
    for owner, member in re.findall(r"\b([A-Z]\w+[a-z]\w*)\.([A-Za-z]\w*)", spans):
        assert {owner, member} <= words, f"{owner}.{member}"


def test_a_mapped_setting_is_ours_or_none_with_a_reason() -> None:
    known = options_of(installed_commands()[name] for name in ("impala-learner", "impala-actor"))
    lines = re.findall(r"^\|(.*)\|$", PAGES[MAPPING], re.MULTILINE)
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    rows = [row for row in rows if row[0] not in ("theirs", "---")]
    assert len(rows) > 100
    for theirs, ours, _ in rows:
        named = re.findall(r"--[a-z][a-z0-9-]*", ours)
        assert set(named) <= known, (theirs, ours)
        assert named or re.match(r"none( in training|: \w|$)", ours), (theirs, ours)


def test_a_sentence_that_the_diagnosing_page_quotes_is_in_the_code() -> None:
    # given what the programs can say, in the pieces between their figures
    said = [piece for text in constants() for piece in re.split(r"%[-+.\d]*[a-z]", text)]
    # then each quoted piece of some length is part of one of them
    commands = r"(impala-|redis-cli|\$|--|[A-Z_]+=|\.)"
    quotes = [span for span in code_spans(PAGES["diagnosing.md"]) if span.count(" ") >= 3]
    quotes = [s for s in quotes if not re.match(commands, s) and not re.search(r"\n| [*] ", s)]
    assert len(quotes) > 20
    for quote in quotes:
        pieces = re.split(r"\.\.\.|\bNAME\b|\d[\d.,]*|\b[a-z-]+[.:][\w.]*:?\w*|[(),;:%]", quote)
        for piece in (piece.strip(" '") for piece in pieces):
            assert len(piece) < 12 or any(piece in text for text in said), (quote, piece)


def test_what_the_tuning_page_computes_gives_what_it_says() -> None:
    # given the program on the page, and the sentence on what it prints
    page = PAGES["tuning.md"]
    (program,) = re.findall(r"^python - <<'END'\n(.*?)^END$", page, re.DOTALL | re.MULTILINE)
    (printed,) = re.findall(r"It prints ([^(]+) \(", page)

    # when
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)

    # then
    assert re.findall(r"\d+", ran.stdout)[:3] == re.findall(r"\d+", printed)
