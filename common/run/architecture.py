"""The parameters and the memory of each network, without torch.

The wire needs the parameters' names and shapes, and so does an actor that acts in numpy.
`common.networks.network` builds what is described here, and compares.
"""

from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import NamedTuple

from impala_redis.common.errors import ConfigError
from impala_redis.common.run.kinds import NETWORKS, TEXTS, kind_of, lstm_shapes, text_shapes
from impala_redis.common.run.own_network import OwnNetwork
from impala_redis.common.run.spaces import ActionSpec, ObservationPart, ObservationSpec
from impala_redis.common.settings.json_object import EMPTY

Shapes = dict[str, tuple[int, ...]]

# The name under which the tensors of a network of the user's own stand.
OWN_PREFIX = "extractor."
# What brings numbers of observations to a mean near 0 and a deviation near 1.
NORMALIZER = ("normalizer.mean", "normalizer.inverse_std")

# Beside others, numbers in the shape of a smaller picture are no picture (pixels).
LEAST_PICTURE_SIDE = 5


class Picture(NamedTuple):
    """A picture as convolutions see it: the frames of a stack are further channels."""

    channels: int
    height: int  # pixels
    width: int  # pixels
    colours_last: bool  # the observation has its colours behind height and width


def picture_of(part: ObservationPart, frame_stack: int = 1) -> Picture:
    """The part's measures; its colours are the shorter of its first and last axis.

    Before them a part of four dimensions has frames that the environment has stacked itself.
    """
    frames = frame_stack * prod(part.shape[:-3])
    if len(part.shape) == 2:
        return Picture(frames, *part.shape, colours_last=False)
    first, middle, last = part.shape[-3:]
    if first < last:
        return Picture(frames * first, middle, last, colours_last=False)
    return Picture(frames * last, first, middle, colours_last=True)


def convolved_parts(network: str, observation: ObservationSpec) -> tuple[ObservationPart, ...]:
    """The parts that go to convolutions; all others are flattened.

    They are the pictures of bytes. Only where there is none, all other numbers in the shape of a
    picture are taken that are large enough: beside a picture, a matrix is seldom another one.
    """
    kind = kind_of(network)
    if not kind.convolutions:
        return ()
    if found := tuple(part for part in observation.leaves if part.is_picture):
        return found
    shaped = tuple(part for part in observation.leaves if part.has_picture_shape)
    least = max(kind.least_side, LEAST_PICTURE_SIDE)
    return tuple(part for part in shaped if least_side_of(part) >= least) or shaped


def normalized_parts(network: str, observation: ObservationSpec) -> dict[str, slice]:
    """The parts that --normalize-observations is for, by name, each with its place [E] in them all.

    They are numbers that no convolution takes. Pictures of bytes stay as they are, and so do
    categories.
    """
    convolved = convolved_parts(network, observation)
    found: dict[str, slice] = {}
    start = 0
    for part in observation.leaves:
        if not (part.num_values or part.is_picture or part in convolved):
            found[part.name] = slice(start, start + part.num_features)
            start += part.num_features
    return found


def least_side_of(part: ObservationPart) -> int:
    """The shorter of a picture's height and width, in pixels."""
    picture = picture_of(part)
    return min(picture.height, picture.width)


def advice_on_pictures(spec: "NetworkSpec") -> str:
    """What to say where nobody has chosen a network, and a perceptron gets a picture; else empty.

    It names the networks, the shallowest first, that take a picture of this size.
    """
    sides = [least_side_of(part) for part in spec.observation.leaves if part.has_picture_shape]
    fitting = [
        name
        for name, kind in NETWORKS.items()
        if kind.convolutions and not kind.residual_blocks
        if any(side >= kind.least_side for side in sides)
    ]
    if kind_of(spec.network).convolutions or not fitting:
        return ""
    return (
        f"the observation has a picture, and no network was chosen: a perceptron on "
        f"{spec.observation.num_features:,} numbers is used; for pictures give --network "
        f"{' or '.join(fitting)} (or --network mlp to keep it)"
    )


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """What a network is: everything that its parameters depend on."""

    observation: ObservationSpec
    action: ActionSpec
    hidden_sizes: tuple[int, ...]
    activation: str
    network: str = "mlp"  # one of NETWORKS, or module:Name of the user's own
    network_config: str = EMPTY  # arguments of the user's own, as `json_object.canonical` has them
    own: OwnNetwork | None = None  # what is known of the user's own; None for one of NETWORKS
    lstm_size: int = 0
    extra_inputs: str = "none"  # or last_action_reward
    normalize_observations: bool = False
    num_tasks: int = 1  # K: the baseline has an output for each; the policy knows nothing of them
    text: str = "onehot"  # one of TEXTS

    def parameter_shapes(self) -> Shapes:
        """Name and shape of every parameter of the network, in the order they travel.

        Raises ConfigError if the network does not fit the observations.
        """
        return _parameter_shapes(self)

    def statistic_shapes(self) -> Shapes:
        """Name and shape of every array that travels behind the parameters, and is none.

        An update changes them without a gradient: by `normalizer.mean` and its like, numbers of
        observations [E] become such of a mean near 0 and a deviation near 1.

        Raises ConfigError if observations are to be normalised and have no numbers.
        """
        shapes: Shapes = {}
        if self.normalize_observations:
            parts = normalized_parts(self.network, self.observation)
            if not parts:
                raise ConfigError(
                    "--normalize-observations is for numbers, and the observation has only "
                    "pictures and categories; leave it out"
                )
            size = max(part.stop for part in parts.values())
            shapes = dict.fromkeys(NORMALIZER, (size,))
        if self.own:
            shapes |= {OWN_PREFIX + name: shape for name, shape in self.own.buffers}
        return shapes

    def weight_shapes(self) -> Shapes:
        """Name and shape of all that travels: the parameters, then the statistics."""
        return self.parameter_shapes() | self.statistic_shapes()

    @property
    def num_parameters(self) -> int:
        """How many numbers the network's parameters are."""
        return sum(map(prod, self.parameter_shapes().values()))

    @property
    def num_statistics(self) -> int:
        """How many numbers travel behind the parameters."""
        return sum(map(prod, self.statistic_shapes().values()))

    @property
    def widest_layer(self) -> int:
        """The most numbers that a layer is given, or makes, of one environment's observation."""
        layers = kind_of(self.network).convolutions[:1]  # the later ones see smaller pictures
        pictures = [
            layer.channels * -(-picture.height // layer.stride) * -(-picture.width // layer.stride)
            for layer in layers
            for picture in map(picture_of, convolved_parts(self.network, self.observation))
        ]
        widths = (*self.hidden_sizes, 4 * self.lstm_size, self.action.num_outputs)
        widths += (self.own.features_dim,) if self.own else ()
        widths += (self.observation.frame_stack * TEXTS[self.text].widest_layer,)
        return max(self.observation.num_features, *pictures, *widths)

    @property
    def core_memory_size(self) -> int:
        """How many numbers of the memory are the core's, the first of them: the LSTM's h and c.

        A network of the user's own that has a memory is its own core.
        """
        return self.own.memory_size if self.own and self.own.memory_size else 2 * self.lstm_size

    @property
    def num_extra_inputs(self) -> int:
        """Inputs beside the observation (K): the last action's features and the last reward."""
        return self.action.num_features + 1 if self.extra_inputs != "none" else 0

    @cached_property
    def memory_size(self) -> int:
        """How many numbers the policy remembers of each environment from row to row (M).

        They are the core's, then the extra inputs.
        """
        return self.core_memory_size + self.num_extra_inputs


def _parameter_shapes(spec: NetworkSpec) -> Shapes:
    shapes: Shapes = {}
    if spec.action.kind == "continuous":
        shapes["log_std"] = spec.action.sizes
    before, width = _before_hidden_layers(spec)
    shapes |= before
    for index, size in enumerate(spec.hidden_sizes):
        shapes |= _linear(f"torso.{index}", size, width)
        width = size
    width += spec.num_extra_inputs
    if spec.lstm_size:
        shapes |= lstm_shapes("core", width, spec.lstm_size)
        width = spec.lstm_size
    # Logits, or only the means: the deviations are `log_std`, the same in every state.
    shapes |= _linear("policy", sum(spec.action.sizes), width)
    return shapes | _linear("baseline", spec.num_tasks, width)


def _before_hidden_layers(spec: NetworkSpec) -> tuple[Shapes, int]:
    """The parameters before the hidden layers, and how many features these get."""
    if kind_of(spec.network).is_own != (spec.own is not None):
        raise ConfigError(f"the network {spec.network!r} is not known by its parameters")
    if spec.own is None:
        shapes, width = _convolutions(spec.network, spec.observation)
        texts, more = text_shapes(spec.text, spec.observation)
        return shapes | texts, width + more
    if spec.text != "onehot":
        raise ConfigError(
            f"--text {spec.text} is for the built-in networks, and the network {spec.network} is "
            "handed the words of a text one-hot; leave it out, and embed them in your module"
        )
    if spec.own.memory_size and spec.lstm_size:
        raise ConfigError(
            f"the network {spec.network} has a memory of its own (memory_size is "
            f"{spec.own.memory_size}), and --lstm-size {spec.lstm_size} asks for another one; "
            "leave one of them out"
        )
    own = {OWN_PREFIX + name: shape for name, shape in spec.own.parameters}
    return own, spec.own.features_dim


def _linear(name: str, outputs: int, inputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _convolutions(network: str, observation: ObservationSpec) -> tuple[Shapes, int]:
    """The convolutions' parameters, and how many features the hidden layers get."""
    if not kind_of(network).convolutions:
        return {}, observation.num_features
    shapes: Shapes = {}
    width = 0
    pictures = 0
    convolved = convolved_parts(network, observation)
    for part in observation.leaves:
        if part in convolved:
            picture = picture_of(part, observation.frame_stack)
            found, size = _torso(network, picture, part.name)
            shapes |= {f"convolutions.{pictures}.{name}": shape for name, shape in found.items()}
            pictures += 1
        else:
            size = observation.frame_stack * part.num_features
        width += size
    if pictures == 0:
        raise ConfigError(
            f"--network {network} needs a picture (numbers in 2 or 3 dimensions, or a stack of "
            "such), and the observation has none; use --network mlp"
        )
    return shapes, width


def _torso(network: str, picture: Picture, name: str) -> tuple[Shapes, int]:
    """The parameters of one picture's convolutions, and how many features they give."""
    kind = kind_of(network)
    sides = (picture.height, picture.width)
    if min(sides) < (least := kind.least_side):
        raise ConfigError(
            f"--network {network} needs a picture of at least {least}x{least}, the "
            f"observation{f' ({name})' if name else ''} has {sides[0]}x{sides[1]}; use "
            "--network mlp or deep"
        )
    shapes: Shapes = {}
    channels = picture.channels
    for index, layer in enumerate(kind.convolutions):
        kernel = (layer.channels, channels, layer.kernel, layer.kernel)
        shapes |= {f"{index}.weight": kernel, f"{index}.bias": (layer.channels,)}
        channels = layer.channels
    return shapes, channels * prod(map(kind.side_after, sides))
