"""The one door to the terminal: texts of strangers come through it as text, and JSON as JSON."""

import io
import json
import logging
import shutil
import sys
from collections.abc import Iterator

import pytest
from click.testing import CliRunner
from rich.console import Console

from impala_redis.common.errors import MOST_CHARACTERS, printable
from impala_redis.common.presets.table import preset
from impala_redis.common.run.spaces import ObservationSpec, discrete
from impala_redis.common.run.spec import make_spec
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.workers import saying, screen, stopping
from impala_redis.workers.status import main as status_command
from support import ROOT, Programs

ATTACKS = {
    "a title": "\x1b]0;pwned\x07",
    "a title by one character": "\x9d0;pwned\x9c",
    "a colour": "\x1b[31m",
    "a link": "\x1b]8;;http://evil\x1b\\here",
    "a line that looks like ours": "x\nerror: all is lost",
    "a line over ours": "x\rsolved",
    "a tab": "a\tb",
    "another end of a line": "a\u2028b\u2029c\x85d\x0be\x0cf",
    "the other direction": "\u202egnp.exe\u2066",
    "no width": "a\u200bb\ufeffc\u00adc",
    "half a character": "\udc80\ud800",
    "nothing": "\x00\x08\x7f",
}
KINDS = pytest.mark.parametrize("text", ATTACKS.values(), ids=list(ATTACKS))


def fit(shown: str) -> bool:
    """Whether a line is one, and does nothing to a terminal."""
    return shown.removesuffix("\n").isprintable()


@KINDS
def test_a_text_of_strangers_is_one_line_that_does_nothing(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    # when
    console = Console(file=io.StringIO(), force_terminal=True, width=200, highlight=False)
    saying.say_on(console, text)
    stopping.say_error(text)
    record = logging.makeLogRecord({"msg": "%s", "args": (text.replace("\n", " "),)})
    line = stopping._DatedFormatter("%(message)s").format(record)

    # then
    assert fit(printable(text))
    assert fit(capsys.readouterr().err)
    assert fit(console.file.getvalue())  # type: ignore[attr-defined]
    assert fit(line)


@KINDS
def test_of_several_lines_each_does_nothing(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    saying.say(f"first\n{text}\nlast")
    first, *others, last = capsys.readouterr().out.removesuffix("\n").split("\n")
    assert (first, last) == ("first", "last")
    assert all(map(fit, others))


def test_an_endless_text_comes_to_an_end() -> None:
    assert printable("x" * 10**8) == "x" * MOST_CHARACTERS + "..."
    assert printable("x" * MOST_CHARACTERS) == "x" * MOST_CHARACTERS
    lines = saying.printable_lines("y\n" * 10**6).split("\n")
    assert lines == ["y"] * saying.MOST_LINES + ["..."]


@pytest.mark.parametrize("name", ["[red]x[/red]", "[link=http://evil]x[/link]", "[/]", ":dog:"])
def test_no_name_is_markup_on_a_console_of_rich(name: str) -> None:
    # given
    console = Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False)
    saying.say_on(console, name)
    assert console.file.getvalue() == f"{name}\n"  # type: ignore[attr-defined]

    # when it stands on the screen of impala-status
    figures = {"host": name, "pid": "1", "frames_per_s": "5"}
    status = {"actors": {name: figures}, "learner": {"weights_version": 1}}
    recording = Console(file=io.StringIO(), force_terminal=True, width=100, height=20, record=True)
    with screen.Screen(recording) as shown:
        shown.show([("run", name), ("learner", name)], status, trouble=None)

    # then
    assert recording.file.getvalue().count(name) >= 4  # type: ignore[attr-defined]


@KINDS
def test_what_click_says_of_typed_words_does_nothing(text: str) -> None:
    for words in ([f"--{text}"], ["--log-level", text], ["--run", "x", text]):
        # when
        done = CliRunner().invoke(status_command, words)

        # then it is refused in lines that click makes
        assert done.exit_code == 2
        assert all(map(fit, done.output.split("\n")))
        assert "pwned" not in done.output or "\x07" not in done.output


def test_an_option_of_another_name_still_has_its_hint() -> None:
    done = CliRunner().invoke(status_command, ["--num-envs", "4"])
    assert "Did you mean" in done.output or "setting of the whole run" in done.output


@KINDS
def test_json_is_ascii_and_reads_back_as_it_was(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    saying.say_json({"name": text})
    out = capsys.readouterr().out
    assert out.isascii()
    assert fit(out)
    assert json.loads(out) == {"name": text}


def test_json_has_no_number_that_json_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    saying.say_json({"a": [float("nan"), 1.5, (float("-inf"),)], "b": {"c": float("inf")}})
    out = capsys.readouterr().out
    assert json.loads(out, parse_constant=pytest.fail) == {
        "a": [None, 1.5, [None]],
        "b": {"c": None},
    }


@pytest.fixture
def hooked(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process has logging set up as a program does."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    root = logging.getLogger()
    before = list(root.handlers)
    stopping.set_up_logging("info", "test")
    yield
    root.handlers[:] = before


@pytest.mark.usefixtures("hooked")
def test_a_fault_of_our_own_quotes_strangers_harmlessly(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # when
    try:
        raise RuntimeError("held by \x1b]0;pwned\x07")
    except RuntimeError as error:
        sys.excepthook(RuntimeError, error, error.__traceback__)

    # then
    said = capsys.readouterr().err
    assert "RuntimeError: held by ?]0;pwned?" in said
    assert 'test_saying.py", line' in said
    assert all(map(fit, said.split("\n")))


# Runs of strangers, as the programs meet them.

OF_STRANGERS = ["\x1b]0;pwned\x07evil\nerror: fake:CartPole-v1", "x; touch pwned #:Foo-v0"]


@pytest.mark.processes
@pytest.mark.parametrize("env", OF_STRANGERS, ids=["a title", "a command"])
def test_a_checkpoint_of_strangers_says_nothing_of_its_own(programs: Programs, env: str) -> None:
    # given one with such an environment
    folder = shutil.copytree(ROOT / "tests" / "records" / "run_of_wire_2", programs.folder / "run")
    (file,) = (folder / "checkpoints").glob("*.json")
    facts = json.loads(file.read_text())
    facts["spec"] = json.dumps(json.loads(facts["spec"]) | {"env": env})
    file.write_text(json.dumps(facts))

    # when
    code, output = programs.run("impala-eval", "--checkpoint", "run")

    # then it is refused in one line, with no command to type that is not ours
    assert code == 9, output
    assert all(map(fit, output.split("\n")))
    assert output.count("error: ") == 1 + env.count("error: ")
    assert output.count("\n") == 1
    assert "--env-module" not in output


@pytest.mark.processes
@pytest.mark.parametrize("env", OF_STRANGERS, ids=["a title", "a command"])
def test_a_run_of_strangers_says_nothing_of_its_own(
    programs: Programs, redis_url: str, run_name: str, env: str
) -> None:
    # given a run whose spec has such an environment
    spec = make_spec(run_name, preset("cartpole"), ObservationSpec((4,), "float32"), discrete(2))
    link = LearnerLink(redis_url, run_name, "somebody", 10.0)
    link.open()
    evil = json.dumps(json.loads(spec.to_json()) | {"env": env})
    link.announce(evil, spec.fingerprint, "running")
    link.close()

    # when
    code, output = programs.run(
        "impala-actor", "--run", run_name, "--redis-url", redis_url, "--wait-learner-s", "1"
    )

    # then
    assert code == 9, output
    assert all(map(fit, output.split("\n")))
    assert "--env-module" not in output
