"""What stands before the hidden layers: an observation's parts become features.

The convolutions are the paper's: shallow and deep those of its figure 3, nature those of its
shallow Atari agent (Mnih et al. 2015, "Human-level control through deep reinforcement learning").
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from common.architecture import BLOCKS, CONVOLUTIONS, SECTIONS, Picture, is_convolved, picture
from common.spaces import ObservationSpec, Part


class Plain(nn.ModuleList):
    """Convolutions one after the other, each rectified."""

    def __init__(self, network: str, seen: Picture) -> None:
        wide = [seen.channels, *(channels for channels, _, _ in CONVOLUTIONS[network])]
        super().__init__(
            convolution(inputs, outputs, kernel, stride=stride)
            for (inputs, outputs), (_, kernel, stride) in zip(
                itertools.pairwise(wide), CONVOLUTIONS[network], strict=True
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [rows, C, H, W] to features [rows, F]."""
        for layer in self:
            x = functional.relu_(layer(x))
        return x.flatten(1)


class Residual(nn.ModuleList):
    """Sections of a convolution, a pool and residual blocks of two convolutions each."""

    def __init__(self, seen: Picture) -> None:
        wide = [seen.channels, *SECTIONS]
        super().__init__(
            convolution(inputs if first else outputs, outputs, 3, padding=1)
            for inputs, outputs in itertools.pairwise(wide)
            for first in (True, *[False] * (2 * BLOCKS))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Pictures [rows, C, H, W] to features [rows, F]."""
        layers: Iterator[nn.Module] = iter(self)
        for _ in SECTIONS:
            x = functional.max_pool2d(next(layers)(x), 3, stride=2, padding=1)
            for _ in range(BLOCKS):
                inner = next(layers)(functional.relu(x))
                x = x + next(layers)(functional.relu_(inner))
        return functional.relu(x).flatten(1)


def torsos(network: str, observation: ObservationSpec) -> nn.ModuleList:
    """The convolutions of each picture in an observation, in their order."""
    pictures = [
        picture(leaf, observation.frame_stack)
        for leaf in observation.leaves
        if is_convolved(network, leaf)
    ]
    if network == "deep":
        return nn.ModuleList(map(Residual, pictures))
    return nn.ModuleList(Plain(network, seen) for seen in pictures)


def features(
    observation: ObservationSpec, network: str, convolutions: nn.ModuleList, rows: Tensor
) -> Tensor:
    """Observations [rows, ...], or stacks of them [rows, S, ...], to features [rows, F]."""
    left = iter(convolutions)
    found = []
    for leaf in observation.leaves:
        values = _taken_out(leaf, rows) if observation.parts else rows
        if is_convolved(network, leaf):
            pixels = _channels_first(picture(leaf, observation.frame_stack), leaf, values)
            # The colours of a pixel side by side: on a CPU too it takes a third of the time.
            pixels = pixels.to(torch.float32, memory_format=torch.channels_last)
            found.append(next(left)(pixels.mul_(1 / 255)))
        else:
            found.append(_flattened(leaf, values))
    return found[0] if len(found) == 1 else torch.cat(found, -1)


def convolution(inputs: int, outputs: int, kernel: int, **options: int) -> nn.Conv2d:
    """One with orthogonal weights for a rectifier behind it."""
    layer = nn.Conv2d(inputs, outputs, kernel, **options)  # type: ignore[arg-type]
    nn.init.orthogonal_(layer.weight, 2**0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def _taken_out(part: Part, rows: Tensor) -> Tensor:
    """A part of rows of bytes [rows, (S,) bytes], in its own dtype and shape."""
    place = rows[..., part.start : part.start + part.num_bytes].contiguous()
    return place.view(getattr(torch, part.dtype)).view(*rows.shape[:-1], *part.shape)


def _channels_first(seen: Picture, part: Part, values: Tensor) -> Tensor:
    """Pictures [rows, (S,) ...] to [rows, C, H, W]: the frames of a stack are channels."""
    if len(part.shape) == 3 and not seen.channels_first:
        values = values.movedim(-1, -3)
    return values.reshape(len(values), seen.channels, seen.height, seen.width)


def _flattened(part: Part, values: Tensor) -> Tensor:
    """One-hot categories, bytes as 0 .. 1, other numbers as they are: [rows, F] float32."""
    if part.num_values:
        sizes = torch.tensor(part.num_values, device=values.device)
        places = values.reshape(-1, len(sizes)).long() + (sizes.cumsum(0) - sizes)
        one_hot = torch.zeros(len(places), part.num_features, device=values.device)
        return one_hot.scatter_(1, places, 1.0).reshape(len(values), -1)
    x = values.reshape(len(values), -1).float()
    return x / 255.0 if part.dtype == "uint8" else x
