"""Settings that solve a task, by name; comments say why a preset departs from the paper."""

from typing import Any

from impala_redis.common.errors import ConfigError
from impala_redis.common.presets import atari, many_tasks, small
from impala_redis.common.run.config import Config

PRESETS: dict[str, dict[str, Any]] = {**small.PRESETS, **atari.PRESETS, **many_tasks.PRESETS}


def preset(name: str) -> Config:
    """The defaults changed by a preset. Raises ConfigError if there is none of that name."""
    if name not in PRESETS:
        raise ConfigError(f"there is no preset {name!r}; there are: {', '.join(sorted(PRESETS))}")
    return Config().replace(PRESETS[name])
