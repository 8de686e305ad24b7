"""The environments that a run's tasks are played in, and how each is made."""

from collections.abc import Sequence
from typing import NamedTuple

from impala_redis.common.errors import ConfigError
from impala_redis.common.settings.json_object import joined
from impala_redis.common.settings.variant import Variant
from impala_redis.common.tasks.task import Task


class World(NamedTuple):
    """An environment, as it is made for a run."""

    env: str
    variant: Variant


def worlds_of(env: str, variant: Variant, tasks: Sequence[Task]) -> tuple[World, ...]:
    """The world of each task, whose arguments are set over the variant's; the run's if it has none.

    Args:
      env: the run's environment.
      variant: how the run makes its environments.
      tasks: those of the run.

    Raises ConfigError: the arguments of both are too long together.
    """
    if not tasks:
        return (World(env, variant),)
    return tuple(World(task.env, _variant_of(task, variant)) for task in tasks)


def _variant_of(task: Task, variant: Variant) -> Variant:
    try:
        return variant._replace(env_kwargs=joined(variant.env_kwargs, task.env_kwargs))
    except ValueError as error:
        raise ConfigError(
            f"env_kwargs of the run and of the task {task.name} do not fit together: {error}"
        ) from error
