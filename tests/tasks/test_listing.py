"""A list of tasks: written in any of its forms it is the same one, and else refused."""

from pathlib import Path
from typing import Any

import pytest

from impala_redis.common.errors import ConfigError
from impala_redis.common.run.config import Config, find_setting
from impala_redis.common.run.config_file import config_in, read_toml, to_toml
from impala_redis.common.tasks.listing import as_text, numbers_of, spelled_out, tasks_in, told
from impala_redis.common.tasks.task import MOST_TASKS, Task
from impala_redis.workers.setting_options import SettingType, as_arguments

NEAR = Task("near", "Near-v0", share=3, random=-1.5, reference=10.0)
FAR = Task("pkg.far/1", "pkg:Far-v0", reward_scale=0.1, env_kwargs='{"size": 9, "word": "a\\"b"}')
FILE = """
[[tasks]]
name = "near"
env = "Near-v0"
share = 3
random = -1.5
reference = 10

[[tasks]]
name = "pkg.far/1"
env = "pkg:Far-v0"
reward_scale = 0.1
env_kwargs = {size = 9, word = 'a"b'}
"""


def test_a_file_a_config_and_a_line_of_json_say_the_same(tmp_path: Path) -> None:
    # given a file of tasks alone, and one with other settings, too
    (tmp_path / "tasks.toml").write_text(FILE)
    (tmp_path / "all.toml").write_text("seed = 7\n" + FILE)
    by_option = SettingType(find_setting("tasks")).convert(str(tmp_path / "tasks.toml"), None, None)

    # then
    config = Config().replace(read_toml(tmp_path / "all.toml"))
    assert by_option == config.environment.tasks == (NEAR, FAR)
    assert tasks_in(as_text((NEAR, FAR))) == (NEAR, FAR)


def test_tasks_come_back_from_a_runs_config_and_from_the_arguments_of_another_program(
    tmp_path: Path,
) -> None:
    # given
    config = Config().replace({"tasks": [NEAR, FAR]})
    assert config.environment.env == "Near-v0"

    # when
    (tmp_path / "config.toml").write_text(to_toml(config))
    arguments = dict(one.removeprefix("--").split("=", 1) for one in as_arguments(config)[:2])

    # then
    assert Config().replace(read_toml(tmp_path / "config.toml")) == config
    given = SettingType(find_setting("tasks")).convert(arguments["tasks"], None, None)
    assert (arguments["env"], given) == ("Near-v0", (NEAR, FAR))


def test_several_ids_with_commas_are_tasks_of_these_names() -> None:
    config = Config().replace({"env": "CartPole-v1, pkg:Acrobot-v1"})
    assert config.environment.tasks == (
        Task("CartPole-v1", "CartPole-v1"),
        Task("Acrobot-v1", "pkg:Acrobot-v1"),
    )
    assert told("CartPole-v1", config.environment.tasks) == "2 tasks (CartPole-v1, Acrobot-v1)"


def test_the_last_who_names_environments_is_heard() -> None:
    several = Config().replace({"tasks": [NEAR, FAR]})
    assert several.replace({"env": "CartPole-v1"}).environment.tasks == ()
    assert several.replace({"seed": 3}).environment.tasks == (NEAR, FAR)
    assert several.replace({"env": "A-v0,B-v0"}).environment.env == "A-v0"


def test_a_file_whose_path_has_a_comma_is_one_environment() -> None:
    assert spelled_out({"env": "my,envs/one.py:Id-v0"})["tasks"] == ()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"env": "A-v0", "tasks": [NEAR]}, "--env names A-v0, and the first of the tasks"),
        ({"env": "A-v0,B-v0", "tasks": [NEAR]}, "--env and --tasks both name several"),
        ({"env": "A-v0,A-v0"}, "two tasks have the name A-v0; give each"),
        ({"env": "A-v0,no id"}, "the task no id has env|a task has the name 'no id'"),
        ({"tasks": [{"env": "A-v0"}, {"env": "m:A-v0"}]}, "two tasks have the name A-v0"),
        ({"tasks": {"env": "A-v0"}}, "tasks must be a list of at most 128 tables"),
        ({"tasks": [{"name": "a"}]}, "a task has env = None; give it the id"),
        ({"tasks": [{"env": "A-v0", "shares": 2}]}, "has no 'shares'; did you mean share"),
        ({"tasks": [{"env": "A-v0", "x": 2}]}, "has no 'x'; it has name, env, share"),
        ({"tasks": [{"env": "A-v0", "seed": 2}]}, "if this is one, stand above the first [[tasks"),
        ({"tasks": [{"env": "A-v0", "share": 1.0}]}, "share = 1.0, no whole number"),
        ({"tasks": [{"env": "A-v0", "share": 0}]}, "share = 0, not a whole number from 1 to 32"),
        ({"tasks": [{"env": "A-v0", "share": True}]}, "share = True, no whole number"),
        ({"tasks": [{"env": "A-v0", "random": "1"}]}, "random = '1', not a number"),
        ({"tasks": [{"env": "A-v0", "random": 1.0}]}, "random = reference = 1"),
        ({"tasks": [{"env": "A-v0", "reference": float("nan")}]}, "reference = nan, not a number"),
        ({"tasks": [{"env": "A-v0", "reward_scale": 10**400}]}, "beyond all numbers"),
        ({"tasks": [{"env": "A-v0", "env_kwargs": "["}]}, "env_kwargs of the task A-v0: it must"),
        ({"tasks": [{"env": "A-v0", "name": "a b"}]}, "has the name 'a b'; give it 1 to 64"),
        ({"tasks": [{"env": "A-v0", "name": "a:b"}]}, "has the name 'a:b'"),
        ({"tasks": [{"env": "A-v0", "name": 3}]}, "has the name 3, not a text"),
        ({"tasks": "a.toml"}, "tasks are 'a.toml', not a TOML file with"),
        ({"tasks": [Task(f"t{n}", "A-v0", share=32) for n in range(128)] * 2}, "at most 128"),
        ({"tasks": [3]}, "tasks have 3, not a table"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_what_is_no_list_of_tasks_is_refused_in_words(values: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        Config().replace(values)


@pytest.mark.parametrize("argument", ["x" * 270, "." * 20], ids=["characters", "dots"])
def test_tasks_that_a_runs_own_file_could_not_hold_are_refused(argument: str) -> None:
    # given as many tasks as there may be
    def tasks(argument: str) -> list[dict[str, Any]]:
        return [
            {"name": f"t{number}", "env": "A-v0", "env_kwargs": {"a": argument}}
            for number in range(MOST_TASKS)
        ]

    # then what is taken comes back from the run's config
    config = Config().replace({"tasks": tasks("x" * 150)})
    assert config_in(to_toml(config).encode()) == config
    with pytest.raises(ConfigError, match="shorter names or less env_kwargs"):
        Config().replace({"tasks": tasks(argument)})


def test_all_shares_together_have_a_bound() -> None:
    tasks = [Task(f"t{n}", "A-v0", share=32) for n in range(MOST_TASKS)]
    assert len(tasks_in(tasks)) == MOST_TASKS  # 4,096 places
    with pytest.raises(ConfigError, match="share = 33"):
        Task("a", "A-v0", share=33)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("seed = 7\n" + FILE, "has seed, and is to have tasks alone"),
        ("", "has no tasks, and is to have tasks alone"),
        ("tasks = []", "has an empty list of tasks; fill it"),
        ("[[tasks]", "is not TOML"),
        (None, "cannot read the config file"),
    ],
)
def test_a_file_of_tasks_has_these_alone(tmp_path: Path, text: str | None, words: str) -> None:
    # given
    file = tmp_path / "tasks.toml"
    if text is not None:
        file.write_text(text)

    # then the option says so
    option = SettingType(find_setting("tasks"))
    with pytest.raises(Exception, match=words):
        option.convert(str(file), None, None)


def test_tasks_are_found_by_name() -> None:
    assert numbers_of((NEAR, FAR), ["pkg.far/1"]) == (1,)
    assert numbers_of((NEAR, FAR), ["pkg.far/1", "near", "near"]) == (0, 1)
    with pytest.raises(ConfigError, match=r"no task 'far'; there are: near, pkg.far/1"):
        numbers_of((NEAR, FAR), ["far"])
    with pytest.raises(ConfigError, match="no task 'far'; it has but one environment"):
        numbers_of((), ["far"])
