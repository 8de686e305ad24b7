"""The networks that the kit measures, with the tasks that they are for."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from impala_redis.common.presets.table import preset
from impala_redis.common.run.config import Config
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec, discrete
from impala_redis.common.run.spec import RunSpec, make_spec

_POLE = (ObservationSpec((4,), "float32"), discrete(2))
_HALF_A_POLE = (ObservationSpec((2,), "float32"), discrete(2))
_PONG = (ObservationSpec((84, 84), "uint8", frame_stack=4, scale=(255,)), discrete(6))


class Kind(NamedTuple):
    """A network by its preset, what it differs in from that, and its spaces."""

    preset: str
    changes: Mapping[str, Any]
    spaces: tuple[ObservationSpec, ActionSpec]


# "deep" is the paper's, with hidden layer and memory in its sizes.
KINDS = {
    "mlp": Kind("cartpole", {}, _POLE),
    "shallow": Kind("atari-fast", {}, _PONG),
    "nature": Kind("atari", {}, _PONG),
    "deep": Kind("atari", {"network": "deep", "hidden_sizes": (256,)}, _PONG),
    "lstm": Kind("masked-cartpole", {}, _HALF_A_POLE),
    "deep-lstm": Kind(
        "atari", {"network": "deep", "hidden_sizes": (256,), "lstm_size": 256}, _PONG
    ),
}


def run_of(name: str, changes: Mapping[str, Any]) -> tuple[RunSpec, Config]:
    """The spec and the settings of a run with that network. Raises ConfigError."""
    kind = KINDS[name]
    config = preset(kind.preset).replace({**kind.changes, **changes})
    return make_spec("kit", config, *kind.spaces), config
