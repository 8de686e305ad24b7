"""How large a run's blocks, weights and layers may be."""

from typing import Any, Protocol

from impala_redis.common.errors import ConfigError

# The longest message of a block or of weights, whatever a server would take.
MOST_MESSAGE_BYTES = 512 * 1024 * 1024
# The most numbers, 4 bytes each, that one layer of an actor's network makes in a step.
MOST_NUMBERS = 2**28


class Sized(Protocol):
    """As much of a run's spec as its size depends on."""

    @property
    def envs_per_actor(self) -> int: ...
    @property
    def unroll_length(self) -> int: ...
    @property
    def weights_dtype(self) -> str: ...
    @property
    def own(self) -> Any: ...
    @property
    def rows_nbytes(self) -> int: ...
    @property
    def num_parameters(self) -> int: ...
    @property
    def num_statistics(self) -> int: ...
    @property
    def widest_layer(self) -> int: ...


def check_size(spec: Sized) -> None:
    """Raises ConfigError: blocks, weights or a layer are larger than any machine should bear.

    That is also raised for a network that does not fit the observations.
    """
    most = f"{MOST_MESSAGE_BYTES:,} bytes at most"
    if spec.rows_nbytes > MOST_MESSAGE_BYTES:
        raise ConfigError(
            f"a block of {spec.envs_per_actor:,} environments x {spec.unroll_length:,} steps takes "
            f"{spec.rows_nbytes:,} bytes, and a message has {most}; lower --envs-per-actor or "
            "--unroll-length"
        )
    each = 2 if spec.weights_dtype == "bfloat16" else 4
    needed = each * spec.num_parameters + 4 * spec.num_statistics
    if needed > MOST_MESSAGE_BYTES:
        smaller = "make it smaller, or lower" if spec.own else "lower"
        raise ConfigError(
            f"the network's {spec.num_parameters:,} parameters take {needed:,} bytes, and a "
            f"message has {most}; {smaller} --hidden-sizes or --lstm-size"
        )
    if spec.envs_per_actor * spec.widest_layer > MOST_NUMBERS:
        raise ConfigError(
            f"{spec.envs_per_actor:,} environments x {spec.widest_layer:,} numbers in one layer of "
            f"the network are more than {MOST_NUMBERS:,}; lower --envs-per-actor"
        )
