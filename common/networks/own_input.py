"""Observations as a network of the user's own is handed them: tensors, or dicts of them by key."""

from typing import Any

import torch
from torch import Tensor, nn

from impala_redis.common.encoding.handed import Handed, HandedPart, in_place
from impala_redis.common.networks.torsos import FlatTorso, Normalizer, taken_out


class OwnInput(nn.Module):
    """Takes observations apart; it has no parameters, and no buffers that travel."""

    def __init__(
        self, handed: Handed, in_bytes: bool, normalizer: Normalizer | None = None
    ) -> None:
        """`in_bytes`: observations are rows of bytes that hold the parts.

        The normalizer, if there is one, is a module of the whole network.
        """
        super().__init__()
        self._normalize = None if normalizer is None else normalizer.forward
        self._parts, self._in_bytes = handed.parts, in_bytes
        self._categories = {
            part: _Categories(part.part.num_values) for part in handed.parts if part.part.num_values
        }
        scaled = {
            part: FlatTorso(part.part)
            for part in handed.parts
            if normalizer is not None and part.part.name in normalizer.parts
        }
        self._scaled = scaled
        # They move with it.
        self.tables = nn.ModuleList([*self._categories.values(), *scaled.values()])

    def forward(self, observations: Tensor, leading: int = 1) -> Any:
        """Observations [*L, ...] or stacks of them [*L, S, ...] as `common.encoding.handed` says.

        L are `leading` dimensions, which stay.
        """
        return in_place(self._parts, lambda part: self._read(part, observations, leading))

    def _read(self, part: HandedPart, observations: Tensor, leading: int) -> Tensor:
        """A part as float32 [*L, *part.shape], in one piece of memory, as `view` needs it.

        It is a copy: the module may compute in place.
        """
        values = taken_out(part.part, observations) if self._in_bytes else observations
        rows = values.shape[:leading]
        values = values.reshape(-1, *part.part.shape)
        if part in self._categories:
            values = self._categories[part](values)
        elif self._normalize is not None and part in self._scaled:
            values = self._normalize(part.part.name, self._scaled[part](values))
        elif part.is_picture:
            values = values.movedim(-1, -3) if part.colours_last else values
            values = values.contiguous().float().div_(255.0)
        copied = values.to(torch.float32, copy=True)
        return copied.reshape(*rows, *part.shape).contiguous()


class _Categories(nn.Module):
    """Categories become ones among zeros, side by side."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        super().__init__()
        counts = torch.tensor(sizes, dtype=torch.int64)
        self._first: Tensor  # [E] the first feature of each of the E categories
        self.register_buffer("_first", counts.cumsum(0) - counts, persistent=False)
        self._num_features = sum(sizes)

    def forward(self, values: Tensor) -> Tensor:
        """Values [rows, ...] from 0 as [rows, F] float32."""
        ones = values.reshape(len(values), -1).long() + self._first
        zeros = torch.zeros(len(ones), self._num_features, device=ones.device)
        return zeros.scatter_(1, ones, 1.0)
