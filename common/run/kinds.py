"""The kinds of networks, and how texts enter them: two tables.

Options, parameters and torch modules are made from them.
"""

from dataclasses import dataclass
from typing import NamedTuple

from impala_redis.common.errors import ConfigError
from impala_redis.common.run.spaces import TEXT_BUCKETS, TEXT_WORDS, ObservationSpec


class Convolution(NamedTuple):
    """One convolution: its output channels, and the window it slides over the picture (pixels)."""

    channels: int
    kernel: int
    stride: int = 1
    padding: int = 0


@dataclass(frozen=True, kw_only=True)
class NetworkKind:
    """One kind of network: its convolutions, and whether an actor can compute it in numpy."""

    help: str  # its words in the help of --network
    convolutions: tuple[Convolution, ...] = ()
    # 0 for plain convolutions. Else they come in sections: a convolution that keeps the size, a
    # pool that halves it, and this many residual blocks of two convolutions each.
    residual_blocks: int = 0
    acts_in_numpy: bool = False  # without a memory, an actor needs no torch
    is_own: bool = False  # a class of the user's: the spec says what its parameters are

    @property
    def num_sections(self) -> int:
        """Sections that the convolutions come in; a plain convolution is one by itself."""
        return len(self.convolutions) // (1 + 2 * self.residual_blocks)

    def side_after(self, side: int) -> int:
        """What the convolutions leave of a picture's height or width of `side` pixels."""
        if self.residual_blocks:
            for _ in range(self.num_sections):
                side = (side + 1) // 2  # only the pools make it smaller
            return side
        for layer in self.convolutions:
            side = (side + 2 * layer.padding - layer.kernel) // layer.stride + 1
        return side

    @property
    def least_side(self) -> int:
        """The smallest picture side, in pixels, that every convolution accepts."""
        side = 1
        for layer in reversed(self.convolutions):
            side = max((side - 1) * layer.stride + layer.kernel - 2 * layer.padding, 1)
        return side


@dataclass(frozen=True, kw_only=True)
class TextKind:
    """One way in which the words of a text enter a network; each text has weights of its own."""

    help: str  # its words in the help of --text
    embedding_size: int = 0  # numbers that each word becomes (E); 0 leaves the words one-hot
    lstm_size: int = 0  # cells of an LSTM that reads the words in order; 0 adds them up

    @property
    def num_features(self) -> int:
        """How many network inputs a text makes; only where words have embeddings."""
        return self.lstm_size or self.embedding_size

    @property
    def widest_layer(self) -> int:
        """The most numbers that a layer makes of one text, beside its one-hot words."""
        return max(4 * self.lstm_size * TEXT_WORDS, self.embedding_size)

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter for one text whose words have embeddings.

        There is no embedding of bucket 0, which stands where there is no word.
        """
        shapes: dict[str, tuple[int, ...]] = {"embedding": (TEXT_BUCKETS - 1, self.embedding_size)}
        if self.lstm_size:
            shapes |= lstm_shapes("lstm", self.embedding_size, self.lstm_size)
        return shapes


def lstm_shapes(name: str, inputs: int, size: int) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter of an LSTM of that name, in the order they travel."""
    return {
        f"{name}.weight_ih": (4 * size, inputs),
        f"{name}.weight_hh": (4 * size, size),
        f"{name}.bias": (4 * size,),
    }


# Every way in which texts enter a network, by its name: the choices and the help of --text, the
# list of parameters and the torch modules are taken from here.
TEXTS = {
    "onehot": TextKind(help="each one-hot at its place"),
    # A text has 16 words at most. In twice as many dimensions their embeddings are nearly
    # orthogonal, and a sum tells which of them it is of.
    "bag": TextKind(help="the sum of embeddings of 32 numbers", embedding_size=32),
    # The paper's sizes for the tasks of DMLab-30.
    "lstm": TextKind(
        help="the last state of an LSTM of 64 cells over embeddings of 20 numbers",
        embedding_size=20,
        lstm_size=64,
    ),
}


def text_shapes(text: str, observation: ObservationSpec) -> tuple[dict[str, tuple[int, ...]], int]:
    """The parameters for all texts of an observation, and how many features more these make.

    That is beside one-hot words, and so it is a negative number. Raises ConfigError: there is no
    text.
    """
    kind = TEXTS[text]
    if not kind.embedding_size:
        return {}, 0
    texts = [part for part in observation.leaves if part.is_text]
    if not texts:
        raise ConfigError(
            f"--text {text} is for the words of a text (a Text space), and the observation has "
            "none; give --text onehot"
        )
    shapes = {
        f"texts.{index}.{name}": shape
        for index in range(len(texts))
        for name, shape in kind.parameter_shapes().items()
    }
    more = sum(kind.num_features - part.num_features for part in texts)
    return shapes, observation.frame_stack * more


def texts_help() -> str:
    """The help of --text: what each way is."""
    return "words of texts; " + "; ".join(f"{name}: {kind.help}" for name, kind in TEXTS.items())


def _sections(*channels: int, residual_blocks: int) -> tuple[Convolution, ...]:
    """The convolutions of a residual network, which has one section for each of `channels`."""
    return tuple(
        Convolution(width, 3, padding=1)
        for width in channels
        for _ in range(1 + 2 * residual_blocks)
    )


# Every kind of network by its name. A row is all that a kind needs: the choices and the help of
# --network, the list of parameters, the torch modules and the choice of the policy are taken from
# here.
NETWORKS = {
    "mlp": NetworkKind(help="hidden layers alone", acts_in_numpy=True),
    "shallow": NetworkKind(
        help="two convolutions", convolutions=(Convolution(16, 8, 4), Convolution(32, 4, 2))
    ),
    "nature": NetworkKind(
        help="three",
        convolutions=(Convolution(32, 8, 4), Convolution(64, 4, 2), Convolution(64, 3)),
    ),
    "deep": NetworkKind(
        help="the paper's fifteen in residual blocks",
        convolutions=_sections(16, 32, 32, residual_blocks=2),
        residual_blocks=2,
    ),
}


# What module:Name names: a network of the user's own before the hidden layers.
_OWN = NetworkKind(help="your own torch module", is_own=True)


def kind_of(network: str) -> NetworkKind:
    """The kind of network that --network names: one of NETWORKS, or module:Name."""
    return NETWORKS.get(network, _OWN)


def networks_help() -> str:
    """The help of --network: what each kind is."""
    flat, *convolved = (f"{name}: {kind.help}" for name, kind in NETWORKS.items())
    return f"{flat}; before them {', '.join(convolved)}, module:Name: {_OWN.help}"
