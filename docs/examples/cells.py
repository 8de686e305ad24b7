"""A world of cells, and a small transformer that sees each cell as a word."""

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from torch import Tensor, nn

SIZE = 3
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))
EMPTY, ME, GOAL = range(3)


class Cells(gymnasium.Env):
    """Walk to the goal: a step towards it pays 1, one away from it costs 1, others nothing."""

    observation_space = spaces.Box(0, 2, (SIZE, SIZE), np.uint8)  # what lies in each cell
    action_space = spaces.Discrete(len(MOVES))

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        me, goal = self.np_random.choice(SIZE * SIZE, 2, replace=False)
        self.me, self.goal, self.steps = divmod(int(me), SIZE), divmod(int(goal), SIZE), 0
        return self.seen(), {}

    def step(self, action):
        before, (row, column), (down, right) = self.distance(), self.me, MOVES[action]
        self.me = min(max(row + down, 0), SIZE - 1), min(max(column + right, 0), SIZE - 1)
        self.steps += 1
        after = self.distance()
        return self.seen(), float(before - after), after == 0, self.steps == 8, {}

    def distance(self):
        return abs(self.me[0] - self.goal[0]) + abs(self.me[1] - self.goal[1])

    def seen(self):
        cells = np.full((SIZE, SIZE), EMPTY, np.uint8)
        cells[self.goal] = GOAL
        cells[self.me] = ME
        return cells


class CellTransformer(nn.Module):
    """Each cell is a word, with its place added to what lies in it; one's own cell is read."""

    def __init__(self, observation_space: spaces.Box, width: int = 32, layers: int = 1) -> None:
        super().__init__()
        self.features_dim = width
        kinds = int(observation_space.high.max()) + 1
        self.words = nn.Embedding(kinds, width)
        self.places = nn.Parameter(0.5 * torch.randn(observation_space.shape[0] ** 2, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, nhead=4, dim_feedforward=2 * width, dropout=0.0, batch_first=True
            )
            for _ in range(layers)
        )

    def forward(self, observations: Tensor) -> Tensor:
        """Cells [batch, rows, columns] to [batch, features_dim]."""
        cells = observations.flatten(1).long()
        x = self.words(cells) + self.places
        for layer in self.layers:
            x = layer(x)
        mine = (cells == ME).unsqueeze(-1)  # one cell in each observation
        return (x * mine).sum(1)


gymnasium.register("Cells-v0", Cells)
