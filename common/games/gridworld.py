"""MiniGrid's and BabyAI's worlds of cells, with spaces that say what the numbers mean.

Their ids start with "MiniGrid-" or "BabyAI-", and the package minigrid must be installed: it is
imported when one is first made. An observation is the agent's direction (4 values), its view of 7
by 7 cells, and the mission in words. Each cell of the view is three categories: an object, a
colour, and a door's state or the agent's direction. MiniGrid calls that a picture with channels of
0 .. 255; here the space is one of categories. An episode's return is above 0 if and only if the
mission was done: 1 - 0.9 * steps / max_steps in MiniGrid.
"""

import contextlib
import importlib
import io
import logging
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from impala_redis.common.errors import UnsupportedEnvironment
from impala_redis.common.settings.env_id import name_of

log = logging.getLogger(__name__)

PREFIXES = ("MiniGrid-", "BabyAI-")
NUM_DIRECTIONS = 4
MAX_MISSION_LENGTH = 1000

GridObservation = dict[str, Any]


def is_gridworld(env_id: str) -> bool:
    """Whether an id, with or without a module to import, is MiniGrid's or BabyAI's."""
    return name_of(env_id).startswith(PREFIXES)


def register(env_id: str) -> None:
    """Makes Gymnasium know MiniGrid's ids. Raises UnsupportedEnvironment if it is not installed."""
    try:
        importlib.import_module("minigrid")
    except ImportError as error:
        raise UnsupportedEnvironment(
            f"{env_id} needs the package minigrid ({error}): run pip install "
            "'impala-redis[minigrid]', or in a checkout scripts/setup.sh minigrid"
        ) from error


class CategoryView(gymnasium.ObservationWrapper[GridObservation, Any, GridObservation]):
    """Gives the view a space of categories, and the mission one of texts."""

    def __init__(self, env: gymnasium.Env[GridObservation, Any]) -> None:
        """Wraps one environment of MiniGrid or BabyAI."""
        super().__init__(env)
        known = importlib.import_module("minigrid.core.constants")
        sizes = [
            len(known.OBJECT_TO_IDX),
            len(known.COLOR_TO_IDX),
            max(len(known.STATE_TO_IDX), NUM_DIRECTIONS),
        ]
        space = env.observation_space
        assert isinstance(space, spaces.Dict), space
        width, height, _ = space["image"].shape or ()
        self.observation_space = spaces.Dict(
            {
                **space.spaces,
                "image": spaces.MultiDiscrete(np.full((width, height, 3), sizes), dtype=np.uint8),
                "mission": spaces.Text(MAX_MISSION_LENGTH, min_length=0),
            }
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[GridObservation, dict[str, Any]]:
        """Starts in a new world. BabyAI prints why it drops some; that goes to the log instead."""
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            started = super().reset(seed=seed, options=options)
        if printed.getvalue():
            log.debug("%s said: %s", self.env, printed.getvalue().strip())
        return started

    def observation(self, observation: GridObservation) -> GridObservation:
        """The same observation: only its space differs."""
        return observation
