"""How a game of Atari is named and played: what of it a user may choose, and what the paper plays.

The names are those that ale-py's environments take, single ones and its vector form alike.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.settings import json_object
from impala_redis.common.settings.env_id import module_of, name_of
from impala_redis.common.settings.variant import AS_REGISTERED, Variant
from impala_redis.common.tasks.task import Task

Tasks = tuple[Task, ...]

GAMES_PREFIX = "ALE/"
MAX_NO_OPS = 30
FULL = "full_action_space"
_ALL_ACTIONS = json_object.canonical({FULL: True})
TIME_LIMIT_FRAMES = 108_000
# What ale-py's single environments take, and its vector form does not, or our policies cannot.
_OTHERS = (
    *("mode", "difficulty", "obs_type", "sound_obs"),
    *("continuous", "continuous_action_threshold"),
)


class Rules(NamedTuple):
    """The rules of a run's games; the defaults are those of the paper."""

    frameskip: int = 4  # emulator frames to an action: a step of ours counts as this many in papers
    repeat_action_probability: float = 0.0  # of a sticky action
    full_action_space: bool = False  # all 18 actions, instead of the game's minimal set
    max_num_frames_per_episode: int = TIME_LIMIT_FRAMES  # of the emulator
    noop_max: int = MAX_NO_OPS  # no-ops at a game's start
    maxpool: bool = True  # a frame is the maximum of the last two
    use_fire_reset: bool = False  # ALE presses FIRE at a game's start
    img_height: int = 84
    img_width: int = 84


# The range of a number: the least, and the most.
_RANGES: dict[str, tuple[float, float]] = {
    "frameskip": (1, 1000),
    "repeat_action_probability": (0, 1),
    "max_num_frames_per_episode": (1, 2**31 - 1),
    "noop_max": (0, 10_000),
    "img_height": (1, 1000),
    "img_width": (1, 1000),
}


def is_atari(env_id: str) -> bool:
    """Whether an id names a game of ALE, as ALE/Pong-v5 or ale_py:ALE/Pong-v5."""
    return module_of(env_id) in ("", "ale_py") and name_of(env_id).startswith(GAMES_PREFIX)


def action_repeat(env_id: str, variant: Variant = AS_REGISTERED) -> int:
    """How many frames of the game one step of ours takes; 1 in all other environments."""
    return rules_of(variant).frameskip if is_atari(env_id) else 1


def with_full_actions(tasks: Sequence[Task], env_kwargs: str = json_object.EMPTY) -> Tasks:
    """The same tasks, where several games of Atari have all 18 actions, which they then share.

    Each game's own minimal set is another one, and one network has one set. Where a task or the run
    says whether it has the full set, that stays.

    Args:
      tasks: those of the run.
      env_kwargs: the run's, which are those of every task.
    """
    games = {name_of(task.env) for task in tasks if is_atari(task.env)}
    if len(games) < 2 or FULL in json_object.arguments(env_kwargs):
        return tuple(tasks)
    return tuple(
        replace(task, env_kwargs=json_object.joined(_ALL_ACTIONS, task.env_kwargs))
        if is_atari(task.env)
        else task
        for task in tasks
    )


def rules_of(variant: Variant = AS_REGISTERED) -> Rules:
    """The rules that a variant gives. Raises UnsupportedEnvironment: it has others, or no values.

    A time limit in steps becomes one in emulator frames.
    """
    given = json_object.arguments(variant.env_kwargs)
    for name, value in given.items():
        if name not in Rules._fields:
            raise UnsupportedEnvironment(_refusal(name))
        _check(name, value)
    rules = Rules(**given)
    if variant.max_episode_steps is not None:
        frames = min(variant.max_episode_steps * rules.frameskip, 2**31 - 1)
        rules = rules._replace(max_num_frames_per_episode=frames)
    return rules


def _refusal(name: str) -> str:
    """Why there is no such argument, and which there are."""
    why = "ale-py's vector form has none" if name in _OTHERS else "it is unknown"
    if name.startswith("continuous"):
        why = "the policy of a game is a choice of buttons"
    return (
        f"a game of Atari takes no argument {name!r} ({why}), but {', '.join(Rules._fields)}; "
        "pictures are stacked by --frame-stack, rewards clipped by --reward-clipping"
    )


def _check(name: str, value: Any) -> None:
    """Raises UnsupportedEnvironment: the value is of another type, or out of range."""
    default = Rules._field_defaults[name]
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(default, bool):
        fits, what = isinstance(value, bool), "true or false"
    else:
        least, most = _RANGES[name]
        whole = isinstance(default, int)
        fits = is_number and least <= value <= most and (not whole or isinstance(value, int))
        what = f"a {'whole ' if whole else ''}number from {least:,g} to {most:,g}"
    if not fits:
        raise UnsupportedEnvironment(f"{name} must be {what}, not {repr(value)[:40]}")
