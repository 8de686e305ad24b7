"""Which parameters a run's network has and how much it remembers, without torch.

The wire needs their names and shapes, and so does an actor that acts in numpy.
`common.networks.network` builds what is described here, and compares.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

from impala_redis.common.errors import ConfigError
from impala_redis.common.run.spaces import ActionSpec, ObservationPart, ObservationSpec

Shapes = dict[str, tuple[int, ...]]

NETWORKS = ("mlp", "shallow", "nature", "deep")


class Convolution(NamedTuple):
    """One convolution: what it gives, and how it looks."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0


# Channels of the deep network's sections: a convolution, a pool by 2 and two residual blocks of two
# convolutions each, all padded to keep the size.
SECTIONS = (16, 32, 32)
BLOCKS = 2
CONVOLUTIONS = {
    "shallow": (Convolution(16, 8, 4), Convolution(32, 4, 2)),
    "nature": (Convolution(32, 8, 4), Convolution(64, 4, 2), Convolution(64, 3)),
    "deep": tuple(
        Convolution(channels, 3, padding=1) for channels in SECTIONS for _ in range(1 + 2 * BLOCKS)
    ),
}


class Picture(NamedTuple):
    """A picture as convolutions see it: the frames of a stack are further channels."""

    channels: int
    height: int
    width: int
    colours_last: bool  # in the observation, behind the two dimensions


def picture(part: ObservationPart, frame_stack: int) -> Picture:
    """The part's measures; its colours are the shorter of its first and last axis."""
    if len(part.shape) == 2:
        return Picture(frame_stack, *part.shape, colours_last=False)
    first, middle, last = part.shape
    if first < last:
        return Picture(frame_stack * first, middle, last, colours_last=False)
    return Picture(frame_stack * last, first, middle, colours_last=True)


def is_convolved(network: str, part: ObservationPart) -> bool:
    """Whether that part of an observation goes to convolutions; else it is flattened."""
    return network != "mlp" and part.is_picture


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What a network is: all that its parameters depend on."""

    observation: ObservationSpec
    action: ActionSpec
    hidden_sizes: tuple[int, ...]
    activation: str
    network: str = "mlp"  # one of NETWORKS
    lstm_size: int = 0
    extra_inputs: str = "none"  # or last_action_reward

    def parameter_shapes(self) -> "Shapes":
        """Name and shape of every parameter of the network, in the order they travel."""
        return parameter_shapes(self)

    @property
    def num_parameters(self) -> int:
        """How many numbers the network's parameters are."""
        return sum(map(prod, self.parameter_shapes().values()))

    @cached_property
    def memory_size(self) -> int:
        """How many numbers the policy remembers of each environment from row to row (M)."""
        return memory_size(self)


def parameter_shapes(spec: "NetworkSpec") -> Shapes:
    """Name and shape of every parameter, in the order they travel.

    Raises ConfigError if the run's network does not fit its observations.
    """
    shapes: Shapes = {}
    if spec.action.kind == "continuous":
        shapes["log_std"] = spec.action.sizes
    convolutions, width = _convolutions(spec.network, spec.observation)
    shapes |= convolutions
    for index, size in enumerate(spec.hidden_sizes):
        shapes |= _linear(f"torso.{index}", size, width)
        width = size
    width += _told_size(spec)
    if spec.lstm_size:
        gates = 4 * spec.lstm_size
        shapes |= {
            "core.weight_ih": (gates, width),
            "core.weight_hh": (gates, spec.lstm_size),
            "core.bias": (gates,),
        }
        width = spec.lstm_size
    # Logits, or means alone: the deviations are `log_std`, the same in every state.
    shapes |= _linear("policy", sum(spec.action.sizes), width)
    return shapes | _linear("baseline", 1, width)


def memory_size(spec: "NetworkSpec") -> int:
    """M: the LSTM's h and c, then with `extra_inputs` the last action's features and the reward."""
    return 2 * spec.lstm_size + _told_size(spec)


def _told_size(spec: "NetworkSpec") -> int:
    return spec.action.num_features + 1 if spec.extra_inputs != "none" else 0


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _convolutions(network: str, observation: ObservationSpec) -> tuple[Shapes, int]:
    """The convolutions' parameters, and the width of all that the hidden layers are told."""
    if network == "mlp":
        return {}, observation.num_features
    shapes: Shapes = {}
    width = 0
    pictures = 0
    for part in observation.leaves:
        if is_convolved(network, part):
            seen = picture(part, observation.frame_stack)
            found, size = _torso(network, seen, part.name)
            shapes |= {f"convolutions.{pictures}.{name}": shape for name, shape in found.items()}
            pictures += 1
        else:
            size = observation.frame_stack * part.num_features
        width += size
    if pictures == 0:
        raise ConfigError(
            f"--network {network} needs a picture (bytes of 2 or 3 dimensions), and the "
            "observation has none; use --network mlp"
        )
    return shapes, width


def _torso(network: str, seen: Picture, name: str) -> tuple[Shapes, int]:
    """The parameters of one picture's convolutions, and how many numbers they give."""
    sides = (seen.height, seen.width)
    if min(sides) < (least := least_side(network)):
        raise ConfigError(
            f"--network {network} needs a picture of at least {least}x{least}, the "
            f"observation{f' ({name})' if name else ''} has {sides[0]}x{sides[1]}; use "
            "--network mlp or deep"
        )
    shapes: Shapes = {}
    channels = seen.channels
    for index, layer in enumerate(CONVOLUTIONS[network]):
        kernel = (layer.channels, channels, layer.kernel, layer.kernel)
        shapes |= {f"{index}.weight": kernel, f"{index}.bias": (layer.channels,)}
        channels = layer.channels
    height, width = (_side_after(network, side) for side in sides)
    return shapes, channels * height * width


def _side_after(network: str, side: int) -> int:
    """Of a picture's side in pixels, what its convolutions leave."""
    if network == "deep":
        for _ in SECTIONS:
            side = (side + 1) // 2  # the pools alone make it smaller
        return side
    for layer in CONVOLUTIONS[network]:
        side = (side - layer.kernel) // layer.stride + 1
    return side


def least_side(network: str) -> int:
    """Of a picture in pixels, so that each convolution finds enough to look at."""
    side = 1
    for layer in reversed(CONVOLUTIONS.get(network, ())):
        side = max((side - 1) * layer.stride + layer.kernel - 2 * layer.padding, 1)
    return side
