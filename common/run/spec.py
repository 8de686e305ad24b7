"""The run's spec: all that an actor or an evaluator must know to join, one JSON text in Redis.

The fingerprint stands for what must agree for data and weights to fit. Every message carries it, so
that nothing of another run, environment or network ever reaches the learner.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from impala_redis.common.errors import ConfigError, SpecMismatch
from impala_redis.common.run.architecture import NetworkSpec
from impala_redis.common.run.config import Config, find_setting, settings
from impala_redis.common.run.env_id import travelling
from impala_redis.common.run.spaces import ActionSpec, ObservationSpec
from impala_redis.common.run.spaces_json import (
    action_from,
    observation_from,
    text_from,
    whole_number_from,
)

# Raised by one whenever the form of a message or of the spec changes.
WIRE_VERSION = 4

# A spec takes some hundred characters, and some hundred more for each part of an observation.
MAX_SPEC_LENGTH = 65_536

# Marks a field that data and weights depend on; the others may differ between programs.
_FITS = {"fits": True}


@dataclass(frozen=True, kw_only=True)
class RunSpec(NetworkSpec):
    """What joins actors, learner and evaluators of one run.

    A field that has the key of a setting is that setting's value, and is checked as that is.
    """

    run: str
    env: str = field(metadata=_FITS)
    unroll_length: int = field(metadata=_FITS)  # T
    envs_per_actor: int  # N
    queue_blocks: int
    max_policy_age_s: float
    seed: int
    weights_dtype: str = field(default="float32", metadata=_FITS)  # on the wire
    compression: str = "none"  # of blocks on the wire
    info_keys: tuple[str, ...] = ()  # of an episode's last info
    queue_policy: str = "drop-oldest"  # what a push does at a full list
    start_frames: int = 0  # before this part of the run: a resumed part plays other episodes
    resumes: int = 0  # of the run: a part that is resumed twice plays other episodes each time
    wire_version: int = field(default=WIRE_VERSION, metadata=_FITS)

    @cached_property  # every message asks for it, and hashing takes longer than packing
    def fingerprint(self) -> str:
        """16 hex digits of everything that data and weights depend on."""
        whole = dataclasses.asdict(self)
        fitting = {name: whole[name] for name in _FITTING}
        return hashlib.sha256(json.dumps(fitting, sort_keys=True).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        """One line of JSON that `from_json` reads back."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> "RunSpec":
        """The spec in `text`. Raises SpecMismatch: it is none, or one of another version."""
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
        """What does not fit, in words: "lstm_size is 64 here and 32 there"; empty if all fits."""
        return "; ".join(
            f"{name} is {getattr(self, name)} here and {getattr(other, name)} there"
            for name in _FITTING
            if getattr(self, name) != getattr(other, name)
        )


# What data and weights depend on: all that the network is, and what the run says about both.
_FITTING = (
    *(item.name for item in dataclasses.fields(RunSpec) if item.metadata == _FITS),
    *(item.name for item in dataclasses.fields(NetworkSpec)),
)
_SETTINGS = tuple(
    item.name
    for item in dataclasses.fields(RunSpec)
    if item.name in {setting.key for setting in settings()}
)


def make_spec(
    run: str, config: Config, observation: ObservationSpec, action: ActionSpec
) -> RunSpec:
    """The spec of a run with that config in an environment of those spaces."""
    values = config.values()
    values["env"] = travelling(values["env"])
    return RunSpec(
        run=run, observation=observation, action=action, **{key: values[key] for key in _SETTINGS}
    )


def _spec_from(document: dict[str, Any]) -> RunSpec:
    """Builds the spec after checking each field's type and range. Raises SpecMismatch."""
    expected = {item.name for item in dataclasses.fields(RunSpec)}
    if set(document) != expected:
        odd = ", ".join(sorted(str(name)[:40] for name in set(document) ^ expected)[:5])
        raise SpecMismatch(f"the run's spec has missing or unknown fields: {odd}")
    return RunSpec(
        run=text_from("run", document["run"]),
        observation=observation_from(document["observation"]),
        action=action_from(document["action"]),
        start_frames=whole_number_from("start_frames", document["start_frames"], 0, 2**63),
        resumes=whole_number_from("resumes", document["resumes"], 0, 2**63),
        **{key: _setting_from(key, document[key]) for key in _SETTINGS},
    )


def _setting_from(key: str, value: Any) -> Any:
    """The value of a setting that travels, checked by the setting's own declaration."""
    setting = find_setting(key)
    try:
        return setting.check(value)
    except (ConfigError, RecursionError) as error:  # a deep list has no short text
        raise SpecMismatch(
            f"the run's spec has {key} {repr(value)[:60]}, not {setting.range()}"
        ) from error
