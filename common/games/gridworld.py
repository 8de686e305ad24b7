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
# How many objects, colours and states of a door or an agent minigrid knows.
CELL_SIZES = (11, 6, NUM_DIRECTIONS)
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


def with_categories(space: spaces.Dict) -> spaces.Dict:
    """The space of a level's observations, with a view of categories and a mission of words."""
    width, height, _ = space["image"].shape or ()
    view = np.full((width, height, len(CELL_SIZES)), CELL_SIZES)
    return spaces.Dict(
        {
            **space.spaces,
            "image": spaces.MultiDiscrete(view, dtype=np.uint8),
            "mission": spaces.Text(MAX_MISSION_LENGTH, min_length=0),
        }
    )


class CategoryView(gymnasium.ObservationWrapper[GridObservation, Any, GridObservation]):
    """Gives the view a space of categories, and the mission one of texts."""

    def __init__(self, env: gymnasium.Env[GridObservation, Any]) -> None:
        """Wraps one environment of MiniGrid or BabyAI."""
        super().__init__(env)
        assert isinstance(env.observation_space, spaces.Dict), env.observation_space
        self.observation_space = with_categories(env.observation_space)

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
