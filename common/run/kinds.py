"""The kinds of networks: one table, from which options, parameters and torch modules are made."""

from dataclasses import dataclass
from typing import NamedTuple


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
