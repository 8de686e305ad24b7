"""The run's spec: all that an actor or an evaluator must know to join, one JSON text in Redis.

The fingerprint names what must agree for data and weights to fit; every frame on the wire carries
it, so that nothing of another run, environment or model ever reaches the learner.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from common.config import Config
from common.errors import SpecMismatch
from common.settings import MAX_ENVS

# Raised by one whenever a frame's or the spec's form changes.
WIRE_VERSION = 2

OBSERVATION_DTYPES = ("uint8", "int8", "int16", "int32", "int64", "float32", "float64")
WEIGHTS_DTYPES = ("float32", "bfloat16")
# The fields that data and weights depend on; the others may differ between programs.
_FITTING = (
    "env",
    "observation",
    "num_actions",
    "hidden_sizes",
    "activation",
    "unroll_length",
    "weights_dtype",
    "wire_version",
)
# A spec takes some hundred characters.
MAX_SPEC_LENGTH = 65_536
# A run with larger observations than this is refused rather than tried.
MAX_OBSERVATION_SIZE = 16_777_216


@dataclass(frozen=True)
class ObservationSpec:
    """One environment's observation: an array, or an index when `num_values` is set."""

    shape: tuple[int, ...]  # [] for an index
    dtype: str  # one of OBSERVATION_DTYPES
    num_values: int | None = None  # a Discrete space's size; indices are 0 .. num_values - 1

    @property
    def num_features(self) -> int:
        """Inputs of the network: the array flattened, or one per value."""
        return self.num_values or prod(self.shape)


@dataclass(frozen=True)
class RunSpec:
    """What joins actors, learner and evaluators of one run."""

    run: str
    env: str
    observation: ObservationSpec
    num_actions: int
    hidden_sizes: tuple[int, ...]
    activation: str
    unroll_length: int  # T
    envs_per_actor: int  # N
    queue_blocks: int
    max_policy_age_s: float
    seed: int
    weights_dtype: str = "float32"  # as they travel: one of WEIGHTS_DTYPES
    start_frames: int = 0  # of this part of the run: a resumed part plays other episodes
    wire_version: int = WIRE_VERSION

    @cached_property  # every frame asks for it, and hashing takes longer than packing
    def fingerprint(self) -> str:
        """16 hex digits of everything that data and weights depend on."""
        whole = dataclasses.asdict(self)
        fitting = {name: whole[name] for name in _FITTING}
        return hashlib.sha256(json.dumps(fitting, sort_keys=True).encode()).hexdigest()[:16]

    def parameter_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every parameter of the network, in the order they travel."""
        shapes: dict[str, tuple[int, ...]] = {}
        width = self.observation.num_features
        for index, size in enumerate(self.hidden_sizes):
            shapes |= {f"torso.{index}.weight": (size, width), f"torso.{index}.bias": (size,)}
            width = size
        shapes |= {"policy.weight": (self.num_actions, width), "policy.bias": (self.num_actions,)}
        return shapes | {"baseline.weight": (1, width), "baseline.bias": (1,)}

    @property
    def num_parameters(self) -> int:
        """How many numbers the network's parameters are."""
        return sum(map(prod, self.parameter_shapes().values()))

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "RunSpec":
        """The spec in `text`. Raises SpecMismatch if it is not one, or of another version."""
        if len(text) > MAX_SPEC_LENGTH:
            raise SpecMismatch(f"the run's spec is not a spec: it is {len(text):,} long")
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise SpecMismatch(f"the run's spec is not JSON: {str(error)[:200]}") from error
        if not isinstance(document, dict) or "wire_version" not in document:
            raise SpecMismatch("the run's spec is not a spec: it has no wire_version")
        version = document["wire_version"]
        if type(version) is not int or version != WIRE_VERSION:
            raise SpecMismatch(
                f"the run speaks wire version {str(version)[:20]} and this "
                f"program {WIRE_VERSION}; install the same version of impala-redis on both sides"
            )
        return _spec_from(document)

    def difference(self, other: "RunSpec") -> str:
        """What does not fit, in words: "hidden_sizes is [64] here and [32] there"."""
        return "; ".join(
            f"{name} is {getattr(self, name)} here and {getattr(other, name)} there"
            for name in _FITTING
            if getattr(self, name) != getattr(other, name)
        )


def module_of(env_id: str) -> str:
    """The module that is imported to make an environment, as in module:Id; empty for none."""
    return env_id.rpartition(":")[0]


def make_spec(run: str, config: Config, observation: ObservationSpec, num_actions: int) -> RunSpec:
    """The spec of a run with that config in an environment of those spaces."""
    return RunSpec(
        run=run,
        env=config.environment.env,
        observation=observation,
        num_actions=num_actions,
        hidden_sizes=config.model.hidden_sizes,
        activation=config.model.activation,
        unroll_length=config.environment.unroll_length,
        envs_per_actor=config.environment.envs_per_actor,
        queue_blocks=config.transport.queue_blocks,
        max_policy_age_s=config.transport.max_policy_age_s,
        seed=config.training.seed,
        weights_dtype=config.transport.weights_dtype,
    )


def _spec_from(document: dict[str, Any]) -> RunSpec:
    """Builds the spec after checking each field's type and range. Raises SpecMismatch."""
    expected = {item.name for item in dataclasses.fields(RunSpec)}
    if set(document) != expected:
        odd = ", ".join(sorted(str(name)[:40] for name in set(document) ^ expected)[:5])
        raise SpecMismatch(f"the run's spec has missing or unknown fields: {odd}")
    observation = document["observation"]
    if not isinstance(observation, dict) or set(observation) != {"shape", "dtype", "num_values"}:
        raise SpecMismatch("the run's spec has an observation without shape, dtype, num_values")
    shape = _whole_numbers("observation.shape", observation["shape"], 0, MAX_OBSERVATION_SIZE)
    if len(shape) > 8 or not 0 < prod(shape) <= MAX_OBSERVATION_SIZE:
        raise SpecMismatch(
            f"the run's spec has an observation of shape {shape}: empty or too large"
        )
    dtype = _text("dtype", observation["dtype"], OBSERVATION_DTYPES)
    values = observation["num_values"]
    if values is not None:
        values = _whole_number("observation.num_values", values, 1, 65_536)
        if shape or dtype != "int64":
            raise SpecMismatch("the run's spec has num_values for what is not an int64 index")
    age = document["max_policy_age_s"]
    if isinstance(age, bool) or not isinstance(age, int | float) or not 0 < age <= 1e9:
        raise SpecMismatch(f"the run's spec has max_policy_age_s {str(age)[:40]}")
    return RunSpec(
        run=_text("run", document["run"]),
        env=_text("env", document["env"]),
        observation=ObservationSpec(shape, dtype, values),
        num_actions=_whole_number("num_actions", document["num_actions"], 1, 65_536),
        hidden_sizes=_whole_numbers("hidden_sizes", document["hidden_sizes"], 1, 65_536),
        activation=_text("activation", document["activation"], ("tanh", "relu")),
        unroll_length=_whole_number("unroll_length", document["unroll_length"], 1, 10_000),
        envs_per_actor=_whole_number("envs_per_actor", document["envs_per_actor"], 1, MAX_ENVS),
        queue_blocks=_whole_number("queue_blocks", document["queue_blocks"], 1, 1_000_000_000),
        max_policy_age_s=float(age),
        seed=_whole_number("seed", document["seed"], 0, 2**63),
        weights_dtype=_text("weights_dtype", document["weights_dtype"], WEIGHTS_DTYPES),
        start_frames=_whole_number("start_frames", document["start_frames"], 0, 2**63),
    )


def _text(name: str, value: Any, choices: tuple[str, ...] = ()) -> str:
    if not isinstance(value, str) or len(value) > 256 or (choices and value not in choices):
        raise SpecMismatch(f"the run's spec has {name} {str(value)[:60]!r}")
    return value


def _whole_number(name: str, value: Any, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SpecMismatch(f"the run's spec has {name} {str(value)[:60]}, not {least} to {most}")
    return value


def _whole_numbers(name: str, value: Any, least: int, most: int) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > 64:
        raise SpecMismatch(f"the run's spec has {name} {str(value)[:60]}, not a list")
    return tuple(_whole_number(name, item, least, most) for item in value)
