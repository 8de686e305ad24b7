"""What all commands share: --version, and what a word that is no option of theirs leads to."""

import importlib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from impala_redis import __version__
from impala_redis.common.errors import ConfigError
from impala_redis.common.run.config import find_setting, settings
from impala_redis.common.run.config_file import read_toml
from impala_redis.common.settings.field_names import _OPTIONS, _SETTINGS, our_name
from impala_redis.workers.plan import run_to_join

PROGRAMS = ("actor", "evaluator", "learner", "report", "status", "train")


def command(program: str) -> click.Command:
    found = importlib.import_module(f"impala_redis.workers.{program}").main
    assert isinstance(found, click.Command)
    return found


def typed(program: str, *arguments: str) -> tuple[int, str]:
    """The exit code and the output of a command line."""
    result = CliRunner().invoke(command(program), arguments)
    return result.exit_code, result.output


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_tells_its_version(program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert typed(program, "--version") == (0, f"impala-redis {__version__}\n")
    assert "--version" in typed(program, "--help")[1]
    # a variable that tags of images are kept in is no order to print it
    monkeypatch.setenv("IMPALA_VERSION", "0.1.0")
    assert f"impala-redis {__version__}\n" != typed(program, "--no-such-option")[1]


@pytest.mark.parametrize("program", PROGRAMS)
def test_nan_is_no_number_of_seconds(program: str) -> None:
    """No comparison keeps it out, and a wait of `nan` would never end."""
    for parameter in command(program).params:
        if isinstance(parameter.type, click.types.FloatParamType):
            code, output = typed(program, f"{parameter.opts[0]}=nan")
            assert (code, "nan is not a number" in output) == (2, True), parameter.name


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("--lr", "--learning-rate"),
        ("-lr", "--learning-rate"),
        ("--lr=0.001", "--learning-rate"),
        ("--batch", "--batch-size"),
        ("--envs", "--envs-per-actor"),
        ("--n-envs", "--envs-per-actor"),
        ("--num_envs", "--envs-per-actor"),
        ("--steps", "--total-frames"),
        ("--total-timesteps", "--total-frames"),
        ("--gamma", "--discounting"),
        ("--ent_coef", "--entropy-cost"),
        ("--gae-lambda", "--lambda"),
        ("--max-grad-norm", "--grad-norm-clipping"),
        ("--gpu", "--device"),
        ("--Num-Workers", "--num-actors"),
    ],
)
@pytest.mark.parametrize("program", ["learner", "train"])
def test_a_word_of_the_field_leads_to_the_option(program: str, word: str, name: str) -> None:
    code, output = typed(program, word, "3")
    assert code == 2
    assert output.endswith(
        f"Error: No such option '{word.partition('=')[0]}'. Did you mean '{name}'?\n"
    )


def test_what_the_learner_sets_is_refused_by_others_with_the_program_that_takes_it() -> None:
    sentence = (
        "It is a setting of the whole run: give --learning-rate to impala-learner or impala-train."
    )
    for program in ("actor", "evaluator", "status", "report"):
        for word in ("--lr", "--learning-rate"):
            code, output = typed(program, word, "3")
            assert (code, sentence in output) == (2, True), output


def test_a_slip_of_the_pen_still_finds_its_neighbour() -> None:
    assert "'--learning-rate'" in typed("train", "--learing-rate", "3")[1]
    assert "'--checkpoint'" in typed("evaluator", "--ckpt", "x")[1]
    assert "Did you mean" not in typed("status", "--qqq")[1]
    # also where an option that begins so is typed before it
    assert "No such option '--task'. " in typed("train", "--tasks=[]", "--task", "x")[1]


def test_the_fields_names_lead_to_names_that_exist_and_hide_none() -> None:
    # given every option there is
    options = {
        spelling.lstrip("-").replace("-", "_")
        for program in PROGRAMS
        for parameter in command(program).params
        for spelling in (*parameter.opts, *parameter.secondary_opts)
    }
    keys = {setting.key for setting in settings()}

    # then each name leads to one of them, from one place only, and is no setting itself
    assert set(_SETTINGS) <= keys
    assert set(_OPTIONS) <= options - keys
    words = [word for names in (_SETTINGS | _OPTIONS).values() for word in names.split(", ")]
    assert len(set(words)) == len(words)
    assert {word for word in words if word.replace("-", "_") in keys} == set()
    assert our_name("--No_Such_Thing") is None


def test_a_key_of_the_field_in_a_file_leads_to_ours(tmp_path: Path) -> None:
    for word, key in (("lr", "learning_rate"), ("n_envs", "envs_per_actor")):
        (tmp_path / "c.toml").write_text(f"{word} = 1")
        with pytest.raises(ConfigError, match=f"no setting '{word}'; did you mean {key}\\?"):
            read_toml(tmp_path / "c.toml")
    with pytest.raises(ConfigError, match=r"no setting 'gpu'$"):  # an option, but no setting
        find_setting("gpu")


@pytest.mark.parametrize("program", ["actor", "evaluator", "status"])
def test_a_program_that_joins_a_run_offers_no_name_of_a_preset(program: str) -> None:
    output = " ".join(typed(program, "--help")[1].split())
    assert "the preset's name" not in output
    assert "the preset's or" not in output


def test_an_actor_without_a_run_is_asked_for_its_name_alone() -> None:
    for run in (None, ""):
        with pytest.raises(ConfigError, match=r"^which run\? give --run NAME$"):
            run_to_join(run)
