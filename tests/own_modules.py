"""A network of a user's own with a memory, as the text of their file."""

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
