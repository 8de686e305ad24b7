"""What stands before the hidden layers: an observation's parts become features.

The convolutions (`common.run.architecture`) are the paper's: "shallow" and "deep" are those of its
figure 3, "nature" those of its shallow Atari agent (Mnih et al. 2015, "Human-level control through
deep reinforcement learning").
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from impala_redis.common.networks.texts import TextLstm, TextSum
from impala_redis.common.run.architecture import (
    NetworkSpec,
    convolved_parts,
    normalized_parts,
    picture_of,
)
from impala_redis.common.run.kinds import TEXTS, Convolution, NetworkKind, kind_of
from impala_redis.common.run.spaces import MOST_NORMALIZED, ObservationPart, ObservationSpec


class ObservationTorso(nn.Module):
    """Takes observations apart: pictures go through convolutions, everything else is flattened.

    Texts are flattened, too, unless their words have embeddings.
    """

    def __init__(self, spec: NetworkSpec, normalizer: "Normalizer | None" = None) -> None:
        """`normalizer` is asked for what it changes of each part.

        It belongs to the caller, and so do the modules in `texts`.
        """
        super().__init__()
        network, observation = spec.network, spec.observation
        embedded = TEXTS[spec.text]
        self.texts: list[nn.Module] = []
        self._normalize = None if normalizer is None else normalizer.forward
        self._in_bytes = bool(observation.parts)
        self._torsos: list[tuple[ObservationPart, nn.Module]] = []
        pictures = itertools.count()
        convolved = convolved_parts(network, observation)
        for part in observation.leaves:
            if part in convolved:
                torso: nn.Module = _convolutions(kind_of(network), part, observation.frame_stack)
                self.add_module(str(next(pictures)), torso)
            elif part.is_text and embedded.embedding_size:
                torso = (TextLstm if embedded.lstm_size else TextSum)(embedded)
                self.texts.append(torso)
            else:
                torso = FlatTorso(part)
                self.add_module(f"flat_{len(self._torsos)}", torso)  # its tables move with it
            self._torsos.append((part, torso))

    def forward(self, observations: Tensor) -> Tensor:
        """Observations [rows, ...], or stacks of them [rows, S, ...], to features [rows, F]."""
        if not self._in_bytes:
            ((part, torso),) = self._torsos
            return self._features(part, torso, observations)
        return torch.cat(
            [
                self._features(part, torso, taken_out(part, observations))
                for part, torso in self._torsos
            ],
            1,
        )

    def _features(self, part: ObservationPart, torso: nn.Module, values: Tensor) -> Tensor:
        features: Tensor = torso(values)
        return features if self._normalize is None else self._normalize(part.name, features)


class BuiltInTorso:
    """One of our own networks between an observation and the hidden layers."""

    def __init__(self, spec: NetworkSpec, normalizer: "Normalizer | None" = None) -> None:
        self._torso = ObservationTorso(spec, normalizer)
        # By the names under which their tensors stand in the whole network.
        texts = nn.ModuleList(self._torso.texts)
        self.modules: dict[str, nn.Module] = {"convolutions": self._torso, "texts": texts}

    def __call__(
        self, observations: Tensor, is_first: Tensor, memory: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Features [R * B, F] of rows [R, B, ...], and the memory as it was: it has none."""
        # One flat batch makes each layer a single fused product.
        return self._torso(observations.flatten(0, 1)), memory


class Normalizer(nn.Module):
    """Brings numbers to a mean near 0 and a deviation near 1, as `common.blocks.features` does.

    Its buffers are filled from outside; as they are at first, nothing is changed but the clip.
    """

    def __init__(self, network: str, observation: ObservationSpec) -> None:
        super().__init__()
        self.parts = normalized_parts(network, observation)
        size = max(part.stop for part in self.parts.values())
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(size))  # [E]
        self.inverse_std: Tensor
        self.register_buffer("inverse_std", torch.ones(size))  # [E]

    def forward(self, name: str, numbers: Tensor) -> Tensor:
        """The features [rows, S * E] of the part of that name; as they are if it is left alone."""
        if name not in self.parts:
            return numbers
        place = self.parts[name]
        frames = numbers.view(len(numbers), -1, place.stop - place.start)
        made = (frames - self.mean[place]) * self.inverse_std[place]
        return made.clamp_(-MOST_NORMALIZED, MOST_NORMALIZED).flatten(1)


class FlatTorso(nn.Module):
    """Lays a part's values flat: one-hot categories, and numbers divided by their scale."""

    def __init__(self, part: ObservationPart) -> None:
        super().__init__()
        self._num_features, self._scale = part.num_features, part.scale
        sizes = torch.tensor(part.num_values, dtype=torch.int64)
        # [E] the first feature of each of the E categories
        self._first: Tensor
        self.register_buffer("_first", sizes.cumsum(0) - sizes, persistent=False)
        # [E] what each of the E numbers is divided by, if they differ
        self._table: Tensor
        self.register_buffer("_table", _floats(part.scale), persistent=False)

    def forward(self, values: Tensor) -> Tensor:
        """Values [rows, ...] to [rows, F] float32."""
        x = values.flatten(1) if values.dim() > 1 else values[:, None]
        if len(self._first):
            ones = x.reshape(-1, len(self._first)).long() + self._first
            one_hot = torch.zeros(len(ones), self._num_features, device=x.device)
            return one_hot.scatter_(1, ones, 1.0).reshape(len(x), -1)
        x = x.float()
        if len(self._scale) > 1:
            return (x.view(len(x), -1, len(self._table)) / self._table).flatten(1)
        return x / float(self._scale[0]) if self._scale else x


class PlainConvolutions(nn.ModuleList):
    """Convolutions one after the other, each followed by a rectifier."""

    def __init__(self, kind: NetworkKind, part: ObservationPart, frame_stack: int) -> None:
        super().__init__()
        self._kind = kind
        self._picture = picture = picture_of(part, frame_stack)
        self._scale = part.scale
        # [C, H, W] what the pixels are multiplied by, if they differ
        self._table: Tensor
        table = 1.0 / _floats(part.scale)
        if len(part.scale) > 1:
            table = table.view(part.shape)
            table = table.movedim(-1, -3) if picture.colours_last else table
            table = table.reshape(-1, picture.height, picture.width).repeat(frame_stack, 1, 1)
        self.register_buffer("_table", table, persistent=False)
        channels = picture.channels
        for layer in kind.convolutions:
            self.append(_convolution(channels, layer))
            channels = layer.channels

    def forward(self, values: Tensor) -> Tensor:
        """Pictures [rows, ...], or stacks of them [rows, S, ...], to [rows, F]."""
        picture = self._picture
        if picture.colours_last:
            values = values.movedim(-1, -3)
        pixels = values.reshape(len(values), picture.channels, picture.height, picture.width)
        # The memory layout stays as it comes. In a batch the channels of a pixel lie side by side,
        # which suits convolutions best; in an actor's stacks they do not, and rearranging them
        # would cost more.
        x = pixels.to(torch.float32, copy=bool(self._scale))
        if len(self._scale) > 1:
            x.mul_(self._table)
        elif self._scale:
            x.mul_(1 / self._scale[0])
        return self._convolved(x).flatten(1)

    def _convolved(self, x: Tensor) -> Tensor:
        for layer in self:
            x = functional.relu_(layer(x))
        return x


class ResidualConvolutions(PlainConvolutions):
    """Sections of a convolution, a pool and residual blocks of two convolutions each."""

    def _convolved(self, x: Tensor) -> Tensor:
        layers: Iterator[nn.Module] = iter(self)
        for _ in range(self._kind.num_sections):
            x = functional.max_pool2d(next(layers)(x), 3, stride=2, padding=1)
            for _ in range(self._kind.residual_blocks):
                inner = next(layers)(functional.relu(x))
                x = x + next(layers)(functional.relu_(inner))
        return functional.relu(x)


def _convolutions(kind: NetworkKind, part: ObservationPart, frame_stack: int) -> PlainConvolutions:
    """New convolutions of that kind for a part that is a picture."""
    made = ResidualConvolutions if kind.residual_blocks else PlainConvolutions
    return made(kind, part, frame_stack)


def _floats(scale: tuple[int, ...]) -> Tensor:
    return torch.tensor([float(number) for number in scale])


def _convolution(channels: int, like: Convolution) -> nn.Conv2d:
    """A convolution of `channels` inputs, with orthogonal weights for a rectifier behind it."""
    layer = nn.Conv2d(channels, like.channels, like.kernel, like.stride, like.padding)
    nn.init.orthogonal_(layer.weight, 2**0.5)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def taken_out(part: ObservationPart, rows: Tensor) -> Tensor:
    """A part of rows of bytes [rows, (S,) bytes] as [rows, (S,) *shape], in its own dtype."""
    place = rows[..., part.start : part.start + part.num_bytes]
    place = place.clone(memory_format=torch.contiguous_format)  # `view` needs its start aligned
    return place.view(getattr(torch, part.dtype)).view(*rows.shape[:-1], *part.shape)
