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
        self._parts, self._in_bytes = handed.parts, in_bytes
        self._normalize = None if normalizer is None else normalizer.forward
        normalized = {} if normalizer is None else normalizer.parts
        self._torsos = {
            part: FlatTorso(part.part)
            for part in handed.parts
            if part.part.num_values or part.part.name in normalized
        }
        self.tables = nn.ModuleList(self._torsos.values())  # they move with it

    def forward(self, observations: Tensor, leading: int = 1) -> Any:
        """Observations [*L, ...] or stacks of them [*L, S, ...] as `common.encoding.handed` says.

        L are `leading` dimensions, which stay.
        """
        return in_place(self._parts, lambda part: self._read(part, observations, leading))

    def _read(self, part: HandedPart, observations: Tensor, leading: int) -> Tensor:
        """A part as float32 [*L, *part.shape], in one piece of memory, as `view` needs it.

        It is memory of its own: the module may compute in place.
        """
        values = taken_out(part.part, observations) if self._in_bytes else observations
        rows = values.shape[:leading]
        values = values.reshape(-1, *part.part.shape)
        if part in self._torsos:
            values = self._torsos[part](values)
            if self._normalize is not None:
                values = self._normalize(part.part.name, values)
        elif part.is_picture:
            values = values.movedim(-1, -3) if part.colours_last else values
            values = values.contiguous().float().div_(255.0)
        else:
            values = values.to(torch.float32, copy=True)
        return values.reshape(*rows, *part.shape).contiguous()
