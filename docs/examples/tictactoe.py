"""Tic-tac-toe against a random player, for an agent that has to respect the rules.

Importing it registers TicTacToe-v0. The observation has the board and, in the part `action_mask`, a
1 for each cell that is free. A move to any other cell is an error: no mask, no game.
"""

import gymnasium as gym
import numpy as np

ROWS = [(0, 1, 2), (3, 4, 5), (6, 7, 8)]
COLUMNS = [(0, 3, 6), (1, 4, 7), (2, 5, 8)]
LINES = [*ROWS, *COLUMNS, (0, 4, 8), (2, 4, 6)]
FREE, OURS, THEIRS = 0, 1, 2


class TicTacToe(gym.Env):
    """The agent has the first move; a win earns 1, a draw 0, a defeat -1."""

    observation_space = gym.spaces.Dict(
        board=gym.spaces.MultiDiscrete([3] * 9),
        action_mask=gym.spaces.MultiBinary(9),
    )
    action_space = gym.spaces.Discrete(9)

    def reset(self, *, seed=None, options=None):
        """Empties the board."""
        super().reset(seed=seed)
        self.board = [FREE] * 9
        return self.seen(), {}

    def step(self, action):
        """Plays a move and, if the game goes on, the other player's."""
        if self.board[action] != FREE:
            raise ValueError(f"cell {action} is taken")
        self.board[action] = OURS
        if FREE in self.board and not self.has_won(OURS):
            free = [cell for cell in range(9) if self.board[cell] == FREE]
            self.board[free[self.np_random.integers(len(free))]] = THEIRS
        reward = float(self.has_won(OURS)) - float(self.has_won(THEIRS))
        over = reward != 0 or FREE not in self.board
        return self.seen(), reward, over, False, {}

    def has_won(self, player):
        """Whether three cells in a line are the player's."""
        board = self.board
        return any(board[i] == board[j] == board[k] == player for i, j, k in LINES)

    def seen(self):
        """The board, and which cells are free; after the last move there may be none."""
        board = np.array(self.board)
        return {"board": board, "action_mask": (board == FREE).astype(np.int8)}


gym.register("TicTacToe-v0", TicTacToe)
