"""A user's own network and environment, as the texts of their files, and runs of them."""

from pathlib import Path

import numpy as np
from gymnasium import spaces

from impala_redis.common.encoding.observations import observation_spec
from impala_redis.common.encoding.space_text import text_of
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import discrete
from impala_redis.common.run.spec import RunSpec, make_spec

# A network with a memory.
REMEMBERS = """
import torch
from torch import nn


class Remembers(nn.Module):
    memory_size, features_dim = 5, 7

    def __init__(self, observation_space):
        super().__init__()
        self.cell = nn.GRUCell(observation_space.shape[0], self.memory_size)
        self.out = nn.Linear(self.memory_size, self.features_dim)

    def forward(self, observations, memory, is_first):
        rows = []
        for seen, first in zip(observations, is_first):
            memory = self.cell(seen, memory.masked_fill(first[:, None], 0.0))
            rows.append(memory)
        return self.out(torch.stack(rows)).tanh(), memory
"""

# An environment that pays its size, and shows it with the share of the training that was done when
# the episode began; and a wrapper that pays twice as much.
PAYS = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Pays(gymnasium.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 5}
    observation_space = spaces.Box(0, 9, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self, size=1, render_mode=None):
        self.size, self.render_mode, self.share = size, render_mode, 0.0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.seen = np.array([self.size, self.share], np.float32)
        return self.seen, {}

    def step(self, action):
        return self.seen, float(self.size), False, False, {}

    def render(self):
        return np.zeros((16, 16, 3), np.uint8)

    def set_progress(self, share):
        self.share = share


class Twice(gymnasium.RewardWrapper):
    def reward(self, reward):
        return 2 * reward


gymnasium.register("Pays-v0", Pays, max_episode_steps=7)
"""


def paying_run(folder: Path) -> RunSpec:
    """A run of size 3 with the wrapper, cut after 4 steps; its module is written to the folder."""
    (folder / "pays.py").write_text(PAYS)
    variant = {"env_kwargs": {"size": 3}, "wrapper": ["pays:Twice"], "max_episode_steps": 4}
    config = Config().replace({"env": "pays:Pays-v0", "unroll_length": 4, **variant})
    space = spaces.Box(0, 9, (2,), np.float32)
    text = text_of(space, spaces.Discrete(2))
    return make_spec("paying", config, observation_spec("Pays-v0", space), discrete(2), text)
