"""Settings as options: switches, objects of arguments, and options that are given several times."""

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from impala_redis.common.run.config import Config
from impala_redis.common.run.config_file import read_toml, to_toml
from impala_redis.workers.options import CONTEXT
from impala_redis.workers.setting_options import GroupedCommand, as_arguments, every_setting


def overrides(*arguments: str, **variables: str) -> dict[str, Any]:
    """What a program is told of the settings that were typed, or set by variables."""
    told: dict[str, Any] = {}

    @click.command(cls=GroupedCommand, context_settings=CONTEXT)
    @every_setting
    def program(overrides: dict[str, Any]) -> None:
        told.update(overrides)

    result = CliRunner().invoke(program, arguments, env=variables)
    assert result.exit_code == 0, result.output
    return told


def test_a_switch_is_on_or_off_in_both_spellings_and_by_a_variable() -> None:
    # given
    name = "normalize_observations"
    variable = "IMPALA_NORMALIZE_OBSERVATIONS"

    # then
    assert overrides() == {}
    for on in ("--normalize-observations", "--normalize_observations"):
        assert overrides(on) == {name: True}
    for off in ("--no-normalize-observations", "--no_normalize_observations"):
        assert overrides(off) == {name: False}
    assert overrides(**{variable: "1"}) == {name: True}
    assert overrides(**{variable: "false"}) == {name: False}


def test_arguments_of_constructors_are_one_text_however_they_are_typed() -> None:
    wanted = {"env_kwargs": '{"map": "4x4", "size": 8}'}
    for typed in ('{"size": 8, "map": "4x4"}', "size=8,map=4x4"):
        assert overrides(f"--env-kwargs={typed}") == wanted
        assert overrides(IMPALA_ENV_KWARGS=typed) == wanted


def test_a_repeatable_option_collects_its_items_in_their_order() -> None:
    wanted = {"wrapper": ["mine:First", "mine:Second"]}
    assert overrides("--wrapper", "mine:First", "--wrapper=mine:Second") == wanted
    assert overrides("--wrapper=mine:First,mine:Second") == wanted
    assert overrides(IMPALA_WRAPPER="mine:First mine:Second") == wanted
    assert overrides("--hidden-sizes=8", "--hidden-sizes=4,2") == {"hidden_sizes": [4, 2]}


def test_what_is_played_is_what_was_typed_whatever_a_variable_says() -> None:
    tasks = '[{"env": "CartPole-v0"}]'
    assert overrides("--env=Acrobot-v1", IMPALA_TASKS=tasks) == {"env": "Acrobot-v1"}
    assert list(overrides(f"--tasks={tasks}", IMPALA_ENV="Acrobot-v1")) == ["tasks"]
    assert overrides("--tasks=", IMPALA_ENV="Acrobot-v1") == {"env": "Acrobot-v1"}
    # and two that are typed, or two variables, are compared later
    assert len(overrides("--env=Acrobot-v1", f"--tasks={tasks}")) == 2
    assert len(overrides(IMPALA_ENV="Acrobot-v1", IMPALA_TASKS=tasks)) == 2


@pytest.mark.parametrize("arguments", ["--env-kwargs=size", "--env-kwargs={", "--env-kwargs=[1]"])
def test_what_is_no_object_ends_with_code_2(arguments: str) -> None:
    @click.command(context_settings=CONTEXT)
    @every_setting
    def program(overrides: dict[str, Any]) -> None: ...

    result = CliRunner().invoke(program, [arguments])
    assert result.exit_code == 2
    assert "env_kwargs is" in result.output


CHANGED = Config().replace(
    {
        "env_kwargs": {"size": 8, "name": 'a "b", c'},
        "wrapper": ["mine:First", "mine:Second"],
        "max_episode_steps": 9,
        "normalize_rewards": True,
        "network_config": "width=128",
        "hidden_sizes": [],
    }
)


@pytest.mark.parametrize("config", [Config(), CHANGED], ids=["default", "changed"])
def test_a_config_comes_back_from_arguments_and_from_a_file(config: Config, tmp_path: Path) -> None:
    # given
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config))

    # then
    assert Config().replace(overrides(*as_arguments(config))) == config
    assert Config().replace(read_toml(file)) == config


def test_a_file_may_hold_an_object_as_a_table_of_one_line(tmp_path: Path) -> None:
    # given
    file = tmp_path / "config.toml"
    file.write_text('[environment]\nenv_kwargs = {size = 8, map = "4x4"}\n')

    # then
    assert Config().replace(read_toml(file)).environment.env_kwargs == '{"map": "4x4", "size": 8}'
