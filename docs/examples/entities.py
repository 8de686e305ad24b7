"""A changing number of other beings, and attention from oneself to each of them."""

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

MOST = 6  # beings at once
SIDES = np.array([[-1, 0], [1, 0], [0, -1], [0, 1]], np.float32)


class Flock(gymnasium.Env):
    """Step towards the one being that is food, among a changing number of others.

    A step towards it pays 1, and one away from it costs 1.
    """

    observation_space = spaces.Dict(
        {
            "me": spaces.Box(-1, 1, (2,), np.float32),
            # Each has its place, whether it is food, and whether it is there at all.
            "others": spaces.Box(-1, 1, (MOST, 4), np.float32),
        }
    )
    action_space = spaces.Discrete(len(SIDES))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.me = self.np_random.uniform(-0.5, 0.5, 2).astype(np.float32)
        self.others = np.zeros((MOST, 4), np.float32)
        count = int(self.np_random.integers(2, MOST + 1))
        self.others[:count, :2] = self.np_random.uniform(-1, 1, (count, 2))
        self.others[:count, 3] = 1
        self.others[self.np_random.integers(count), 2] = 1
        return self.seen(), {}

    def step(self, action):
        before = self.distance()
        self.me = np.clip(self.me + 0.2 * SIDES[action], -1, 1).astype(np.float32)
        self.steps += 1
        return self.seen(), float(np.sign(before - self.distance())), False, self.steps == 4, {}

    def distance(self):
        food = self.others[self.others[:, 2] == 1][0]
        return np.abs(food[:2] - self.me).sum()

    def seen(self):
        return {"me": self.me, "others": self.others}


class Attention(nn.Module):
    """Looks from oneself at each being; those that are not there are not seen."""

    def __init__(self, observation_space: spaces.Dict, width: int = 32) -> None:
        super().__init__()
        self.features_dim = 2 * width
        me, others = observation_space["me"].shape[0], observation_space["others"].shape[1]
        self.me = nn.Linear(me, width)
        self.others = nn.Sequential(nn.Linear(me + others, width), nn.ReLU())
        self.look = nn.MultiheadAttention(width, num_heads=2, batch_first=True)

    def forward(self, observations: dict[str, Tensor]) -> Tensor:
        """The parts me [batch, 2] and others [batch, beings, 4] to [batch, features_dim]."""
        me, others = observations["me"], observations["others"]
        beside = me[:, None].expand(-1, others.shape[1], -1)
        x, self_seen = self.others(torch.cat([beside, others], -1)), self.me(me)
        missing = others[..., 3] == 0
        found, _ = self.look(self_seen[:, None], x, x, key_padding_mask=missing, need_weights=False)
        return torch.cat([self_seen, found[:, 0]], -1)


gymnasium.register("Flock-v0", Flock)
