"""The list of a run's tasks, in all the forms in which a user may write it."""

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from impala_redis.common.errors import ConfigError
from impala_redis.common.settings import json_object
from impala_redis.common.settings.declaring import MAX_ENVS
from impala_redis.common.settings.env_id import name_of, names_one
from impala_redis.common.tasks.task import MOST_TASKS, Task

# What --help and refusals call it.
FORM = "a TOML file with [[tasks]] tables, or a JSON list of such"
# The longest text of a list: a table of it takes some hundred characters.
MAX_LIST = 65_536
# Beside all other settings it must fit a config file, in a line of its own, and a run's spec.
MOST_CHARACTERS, MOST_DOTS = 32_768, 2000
# So many names are told in a line of a log.
MOST_TOLD = 5

_FIELDS = {item.name: item for item in dataclasses.fields(Task)}
_NUMBERS = ("random", "reference", "reward_scale")


def tasks_in(value: object) -> tuple[Task, ...]:
    """The tasks in a list of tables, or in its JSON. Raises ConfigError.

    Args:
      value: `Task`s, or tables (dicts) with their fields, of which only `env` is needed. The name
        is the environment's id where it is not given.
    """
    found = _from_json(value) if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or len(found) > MOST_TASKS:
        raise ConfigError(f"tasks must be a list of at most {MOST_TASKS} tables, [[tasks]] in TOML")
    tasks = tuple(one if isinstance(one, Task) else _task_in(one) for one in found)
    names = [task.name for task in tasks]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigError(f"two tasks have the name {twice}; give each [[tasks]] a name of its own")
    if sum(task.share for task in tasks) > MAX_ENVS:
        raise ConfigError(f"the shares of all tasks are more than {MAX_ENVS:,}; lower them")
    text = as_text(tasks)
    if len(text) > MOST_CHARACTERS or text.count(".") > MOST_DOTS:
        raise ConfigError(
            f"tasks take {len(text):,} characters with {text.count('.'):,} dots, and may take "
            f"{MOST_CHARACTERS:,} with {MOST_DOTS:,}; give them shorter names or less env_kwargs"
        )
    return tasks


def as_text(tasks: Sequence[Task]) -> str:
    """The list as one line of JSON, which `tasks_in` reads back; what is default is left out."""
    return json.dumps([table_of(task) for task in tasks])


def table_of(task: Task) -> dict[str, Any]:
    """The task's fields by name, without those that have their default."""
    values = {name: getattr(task, name) for name in _FIELDS}
    return {name: value for name, value in values.items() if value != _FIELDS[name].default}


def spelled_out(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which `env` and `tasks` agree: each of them says what the other one was.

    An `env` of several ids with commas is a list of tasks; one alone leaves no tasks; and a list of
    tasks has its first environment for the run's. Raises ConfigError: both are given, and differ.
    """
    found = dict(values)
    env, tasks = found.get("env"), found.get("tasks")
    if isinstance(env, str) and "," in env and not names_one(env):
        if tasks:
            raise ConfigError("--env and --tasks both name several environments; give one of them")
        tasks = tasks_in([{"env": one.strip()} for one in env.split(",") if one.strip()])
        env = None
    if tasks is None:
        return found if env is None else {**found, "tasks": ()}
    tasks = tasks_in(tasks)
    if not tasks:
        return {**found, "tasks": ()}
    if env not in (None, tasks[0].env):
        raise ConfigError(
            f"--env names {env}, and the first of the tasks is in {tasks[0].env}; give one of them"
        )
    return {**found, "tasks": tasks, "env": tasks[0].env}


def told(env: str, tasks: Sequence[Task]) -> str:
    """What is played: the environment, or how many tasks and the names of the first ones."""
    if len(tasks) < 2:
        return env
    more = ", ..." if len(tasks) > MOST_TOLD else ""
    return f"{len(tasks)} tasks ({', '.join(task.name for task in tasks[:MOST_TOLD])}{more})"


def numbers_of(tasks: Sequence[Task], names: Sequence[str]) -> tuple[int, ...]:
    """The numbers of the tasks of these names. Raises ConfigError: there is none of a name."""
    numbers = {task.name: number for number, task in enumerate(tasks)}
    for name in names:
        if name not in numbers:
            there = f"there are: {', '.join(numbers)}" if numbers else "it has but one environment"
            raise ConfigError(f"the run has no task {name!r}; {there}")
    return tuple(sorted({numbers[name] for name in names}))


def _from_json(text: str) -> Any:
    if len(text) > MAX_LIST:
        raise ConfigError(f"tasks take {len(text):,} characters of {MAX_LIST:,}")
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"tasks are {text[:60]!r}, not {FORM}") from error


def _task_in(table: object) -> Task:
    """The task in a table. Raises ConfigError."""
    if not isinstance(table, dict):
        raise ConfigError(f"tasks have {repr(table)[:60]}, not a table such as env = 'CartPole-v1'")
    for key in table:
        if key not in _FIELDS:
            near = difflib.get_close_matches(str(key)[:80], _FIELDS, n=1)
            hint = f"; did you mean {near[0]}?" if near else f"; it has {', '.join(_FIELDS)}"
            raise ConfigError(
                f"a task has no {str(key)[:80]!r}{hint}; settings of the run, if this is one, "
                "stand above the first [[tasks]]"
            )
    env = table.get("env")
    if not isinstance(env, str):
        raise ConfigError(f"a task has env = {repr(env)[:60]}; give it the id of its environment")
    name, share = table.get("name", name_of(env)), table.get("share", 1)
    if not isinstance(name, str):
        raise ConfigError(f"a task has the name {repr(name)[:60]}, not a text")
    if type(share) is not int:
        raise ConfigError(f"the task {name[:64]} has share = {repr(share)[:60]}, no whole number")
    numbers = {key: _number(name, key, table[key]) for key in _NUMBERS if key in table}
    try:
        env_kwargs = json_object.canonical(table.get("env_kwargs", {}))
    except ValueError as error:
        raise ConfigError(f"env_kwargs of the task {name[:64]}: {error}") from error
    return Task(name, env, share, env_kwargs=env_kwargs, **numbers)


def _number(name: str, key: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"the task {name[:64]} has {key} = {repr(value)[:60]}, not a number")
    try:
        return float(value)
    except OverflowError:
        raise ConfigError(f"the task {name[:64]} has a {key} beyond all numbers") from None
