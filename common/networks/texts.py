"""Texts as features: the embeddings of their words, added up or read in order by an LSTM.

A text is a row of words, each the number of its bucket; 0 stands where there is no word, and comes
behind the last one. The frames of a stack are texts by themselves, with the same weights.

Words find their embeddings by products with ones and zeros: the gradient is a product, too, whose
sums have the same order each time, and a GPU never has to wait for what is in the words.
"""

import torch
from torch import Tensor, nn

from impala_redis.common.networks.lstm import LstmCore
from impala_redis.common.run.kinds import TextKind
from impala_redis.common.run.spaces import TEXT_BUCKETS, TEXT_WORDS


class TextSum(nn.Module):
    """Adds up the embeddings of a text's words; an empty text makes zeros."""

    def __init__(self, kind: TextKind) -> None:
        super().__init__()
        self.embedding = _embedding(kind)

    def forward(self, values: Tensor) -> Tensor:
        """Words [rows, W], or those of stacks [rows, S, W], to [rows, E] or [rows, S * E]."""
        words = values.reshape(-1, TEXT_WORDS).long()
        counts = torch.zeros(len(words), TEXT_BUCKETS, device=words.device)
        counts.scatter_add_(1, words, torch.ones(words.shape, device=words.device))
        return (counts[:, 1:] @ self.embedding).reshape(len(values), -1)


class TextLstm(nn.Module):
    """Reads the embeddings of a text's words in order, and gives the state after the last word."""

    def __init__(self, kind: TextKind) -> None:
        super().__init__()
        self.embedding = _embedding(kind)
        self.lstm = LstmCore(kind.embedding_size, kind.lstm_size)

    def forward(self, values: Tensor) -> Tensor:
        """Words [rows, W], or those of stacks [rows, S, W], to [rows, L] or [rows, S * L].

        An empty text makes zeros.
        """
        words = values.reshape(-1, TEXT_WORDS).long()
        if words.device.type == "cpu":
            words, places = _once_each(words)
            return self._read(words)[places].reshape(len(values), -1)
        return self._read(words).reshape(len(values), -1)

    def _read(self, words: Tensor) -> Tensor:
        """The state [N, L] after the last word of each of N texts [N, W]."""
        num, longest = words.shape
        ones = torch.zeros(longest, num, TEXT_BUCKETS, device=words.device)
        ones.scatter_(2, words.t().unsqueeze(2), 1.0)
        x = ones[..., 1:] @ self.embedding  # [W, N, E]
        goes_on = torch.zeros(longest, num, dtype=torch.bool, device=words.device)
        nothing = torch.zeros(num, self.lstm.weight_hh.shape[1], device=words.device)
        states, _ = self.lstm(x, goes_on, nothing, nothing)
        lengths = (words > 0).sum(1, keepdim=True)  # [N, 1]
        last = (lengths - 1).clamp(min=0).expand_as(nothing)
        after_last: Tensor = states.gather(0, last.unsqueeze(0))[0]
        return after_last.masked_fill(lengths == 0, 0.0)


def _once_each(texts: Tensor) -> tuple[Tensor, Tensor]:
    """The different texts [N, W'] among texts [rows, W], and which of them each row is [rows].

    W' is the length of the longest, at least 1. Texts seldom change from row to row, and few of
    them are long; a CPU would be slowed down by reading all of that again and again.
    """
    different, places = torch.unique(texts, dim=0, return_inverse=True)
    longest = int((different > 0).sum(1).max())
    return different[:, : max(longest, 1)], places


def _embedding(kind: TextKind) -> nn.Parameter:
    """Embeddings [buckets without the empty one, E] of a length near 1, as a one-hot word has."""
    shape = kind.parameter_shapes()["embedding"]
    return nn.Parameter(torch.randn(shape) * kind.embedding_size**-0.5)
