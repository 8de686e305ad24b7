"""Arguments of an environment's constructor: those that are Gymnasium's own are refused."""

from typing import Any

from impala_redis.common.errors import ConfigError

# Gymnasium's own arguments beside those of a constructor, and what to do instead of giving them.
_GYMNASIUMS = {
    "max_episode_steps": "give --max-episode-steps",
    "render_mode": "impala-eval --video draws",
    "num_envs": "give --envs-per-actor",
    "wrappers": "give --wrapper",
} | dict.fromkeys(
    ("id", "disable_env_checker", "vectorization_mode", "vector_kwargs"), "leave it out"
)


def refuse_gymnasiums_own(kwargs: dict[str, Any]) -> None:
    """Raises ConfigError: an argument is Gymnasium's, and none of the environment's."""
    for name in kwargs:
        if name in _GYMNASIUMS:
            raise ConfigError(
                f"--env-kwargs gives {name}, which is no argument of an environment's own: "
                f"{_GYMNASIUMS[name]}"
            )


def is_gymnasiums_own(name: str) -> bool:
    """Whether an argument of that name is Gymnasium's own."""
    return name in _GYMNASIUMS
