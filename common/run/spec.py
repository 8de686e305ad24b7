"""The run's spec: all that an actor or an evaluator must know to join, one JSON text in Redis.

The fingerprint stands for what must agree for data and weights to fit. Every message carries it, so
that nothing of another run, environment or network ever reaches the learner.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice, zip_longest
from math import prod
from typing import Any

from impala_redis.common.errors import ConfigError, SpecMismatch
from impala_redis.common.run.architecture import NetworkSpec
from impala_redis.common.run.config import Config, find_setting, settings
from impala_redis.common.run.differences import differences
from impala_redis.common.run.kinds import kind_of
from impala_redis.common.run.limits import check_size
from impala_redis.common.run.own_network import OwnNetwork, own_network_from
from impala_redis.common.run.spaces import ITEM_BYTES, ActionSpec, ObservationSpec
from impala_redis.common.run.spaces_json import (
    action_from,
    check_fit,
    observation_from,
    text_from,
    whole_number_from,
)
from impala_redis.common.settings.declaring import MAX_TEXT
from impala_redis.common.settings.env_id import FORMS, names_one, travelling
from impala_redis.common.settings.json_object import EMPTY, MAX_OBJECT
from impala_redis.common.settings.variant import Variant
from impala_redis.common.tasks.task import MOST_TASKS, Task
from impala_redis.common.tasks.worlds import World, worlds_of

# Raised by one whenever the form of a message or of the spec changes.
WIRE_VERSION = 6

# A spec takes some hundred characters, and some hundred more for each part of an observation.
MAX_SPEC_LENGTH = 65_536

# The longest text of an environment's own spaces; those with more are not told.
MAX_SPACES_LENGTH = 40_000

# Marks a field that data and weights depend on; the others may differ between programs.
_FITS = {"fits": True}


@dataclass(frozen=True, kw_only=True)
class RunSpec(NetworkSpec):
    """What joins actors, learner and evaluators of one run.

    A field that has the key of a setting is that setting's value, and is checked as that is.
    """

    run: str
    env: str = field(metadata=_FITS)
    # It is empty where one environment was named and no task.
    tasks: tuple[Task, ...] = ()
    env_kwargs: str = field(default=EMPTY, metadata=_FITS)
    wrapper: tuple[str, ...] = field(default=(), metadata=_FITS)
    max_episode_steps: int | None = field(default=None, metadata=_FITS)
    mask_from: str = field(default="observation", metadata=_FITS)
    env_processes: int = 0
    # Gymnasium's spaces of one environment (`common.encoding.space_text`); empty where unknown.
    spaces: str = ""
    unroll_length: int = field(metadata=_FITS)  # T
    envs_per_actor: int  # N
    queue_blocks: int
    max_policy_age_s: float
    seed: int
    weights_dtype: str = field(default="float32", metadata=_FITS)  # on the wire
    compression: str = "none"  # of blocks on the wire
    info_keys: tuple[str, ...] = ()  # of an episode's last info
    queue_policy: str = "drop-oldest"  # what a push does at a full list
    popart: bool = False  # whether the baseline's outputs are values only with a checkpoint's scale
    start_frames: int = 0  # before this part of the run: a resumed part plays other episodes
    resumes: int = 0  # of the run: a part that is resumed twice plays other episodes each time
    wire_version: int = field(default=WIRE_VERSION, metadata=_FITS)

    @property
    def variant(self) -> Variant:
        """How the environment is made, beside its id.

        A run that was begun before there were masks has none, even where a part has that name.
        """
        mask_from = self.mask_from if self.observation.mask else ""
        return Variant(self.env_kwargs, self.wrapper, self.max_episode_steps, mask_from)

    @cached_property
    def worlds(self) -> tuple[World, ...]:
        """The environment of each task, and how it is made; one alone where there are no tasks."""
        return worlds_of(self.env, self.variant, self.tasks)

    @cached_property  # every message asks for it, and hashing takes longer than packing
    def fingerprint(self) -> str:
        """16 hex digits of everything that data and weights depend on."""
        whole = dataclasses.asdict(self)
        fitting = {name: whole[name] for name in _FITTING}
        fitting["tasks"] = [task.fitting for task in self.tasks]
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

    @property
    def task_size(self) -> int:
        """How many task numbers travel with a column: one, where there are several tasks."""
        return int(self.num_tasks > 1)

    @property
    def rows_nbytes(self) -> int:
        """What the rows of a block take, without the episodes that end in it, in bytes."""
        steps, observation = self.unroll_length, self.observation
        each = ITEM_BYTES[observation.dtype] * prod(observation.shape)
        numbers = 4 * prod(self.action.shape) + 14  # beside the action 3 numbers and 2 flags
        once = 4 * self.memory_size + 2 * self.task_size
        column = (steps + 1 + observation.history) * each + steps * numbers + once
        return self.envs_per_actor * column

    def difference(self, other: "RunSpec") -> str:
        """What does not fit, in words: "lstm_size is 64 here and 32 there"; empty if all fits."""
        mine, theirs = ({name: getattr(one, name) for name in _FITTING} for one in (self, other))
        pairs = enumerate(zip_longest(self.tasks, other.tasks), start=1)
        told = (
            (f"task {number}", *(task.fitting if task else "none" for task in pair))
            for number, pair in pairs
        )
        for name, here, there in islice((one for one in told if one[1] != one[2]), 1):
            mine[name], theirs[name] = here, there  # the first that differs is enough
        return differences(mine, theirs)

    def other_spaces(self, observation: ObservationSpec, action: ActionSpec) -> str:
        """How an environment's spaces are not the run's, in words; empty if they are."""
        here = {"observation": observation.scaled_as(self.observation), "action": action}
        return differences(here, {"observation": self.observation, "action": self.action})


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
    run: str,
    config: Config,
    observation: ObservationSpec,
    action: ActionSpec,
    spaces: str = "",
    find_out: Callable[["RunSpec"], OwnNetwork] | None = None,
) -> RunSpec:
    """The spec of a run with that config in an environment of those spaces.

    `find_out` tells the outside of a network of the user's own, of a spec that lacks it.

    Raises ConfigError for a run that no actor would join, because it is too large.
    """
    values = config.values()
    values |= {key: travelling(values[key]) for key in ("env", "network")}
    values["wrapper"] = tuple(map(travelling, values["wrapper"]))
    values["tasks"] = tuple(replace(task, env=travelling(task.env)) for task in values["tasks"])
    spec = RunSpec(
        run=run,
        num_tasks=max(1, len(values["tasks"])),
        observation=observation,
        action=action,
        spaces=spaces,
        **{key: values[key] for key in _SETTINGS},
    )
    is_own = kind_of(spec.network).is_own
    if spec.network_config != EMPTY and not is_own:
        raise ConfigError(
            f"--network-config is for a network of your own, and {spec.network} takes no "
            "arguments; leave it out, or give --network module:Name"
        )
    if is_own and find_out is not None:
        spec = replace(spec, own=find_out(spec))
    check_size(spec)
    return _of_fitting_length(spec)


def _of_fitting_length(spec: RunSpec) -> RunSpec:
    """The spec, without the environment's own spaces where it would be too long to travel.

    Raises ConfigError: tasks or a network of the user's own make it so long.
    """
    if len(spec.to_json()) <= MAX_SPEC_LENGTH:
        return spec
    if spec.own is None:
        spec = replace(spec, spaces="")
        if spec.tasks and len(spec.to_json()) > MAX_SPEC_LENGTH:
            raise ConfigError(
                f"with {len(spec.tasks)} tasks the run's spec takes {len(spec.to_json()):,} "
                f"characters, and {MAX_SPEC_LENGTH:,} at most; give them shorter names or less "
                "env_kwargs, or give fewer"
            )
        return spec
    tensors = len(spec.own.parameters) + len(spec.own.buffers)
    raise ConfigError(
        f"the network {spec.network} has {tensors:,} tensors, and with their names and shapes the "
        f"run's spec takes {len(spec.to_json()):,} characters of {MAX_SPEC_LENGTH:,}; join some of "
        "them, or give them shorter names"
    )


def _spec_from(document: dict[str, Any]) -> RunSpec:
    """Builds the spec after checking each field's type and range. Raises SpecMismatch."""
    expected = {item.name for item in dataclasses.fields(RunSpec)}
    if set(document) != expected:
        odd = ", ".join(sorted(str(name)[:40] for name in set(document) ^ expected)[:5])
        raise SpecMismatch(f"the run's spec has missing or unknown fields: {odd}")
    env, tasks = (_setting_from(key, document[key]) for key in ("env", "tasks"))
    if not names_one(env) or len(env) > MAX_TEXT:
        raise SpecMismatch(f"the run's spec has env {env[:60]!r}, not {FORMS}")
    num_tasks = whole_number_from("num_tasks", document["num_tasks"], 1, MOST_TASKS)
    if num_tasks != max(1, len(tasks)) or (tasks and tasks[0].env != env):
        raise SpecMismatch(
            f"the run's spec has num_tasks {num_tasks} or env {env}, and other tasks"
        )
    spec = RunSpec(
        run=text_from("run", document["run"]),
        observation=observation_from(document["observation"]),
        action=action_from(document["action"]),
        own=own_network_from(document["own"]),
        num_tasks=num_tasks,
        spaces=text_from("spaces", document["spaces"], longest=MAX_SPACES_LENGTH),
        start_frames=whole_number_from("start_frames", document["start_frames"], 0, 2**63),
        resumes=whole_number_from("resumes", document["resumes"], 0, 2**63),
        **{key: _setting_from(key, document[key]) for key in _SETTINGS},
    )
    check_fit(spec.observation, spec.action)
    try:
        check_size(spec)
        worlds_of(env, spec.variant, tasks)
    except ConfigError as error:
        raise SpecMismatch(f"the run's spec will not do: {error}") from error
    return spec


def _setting_from(key: str, value: Any) -> Any:
    """The value of a setting that travels, checked by the setting's own declaration."""
    setting = find_setting(key)
    if setting.parse and setting.kind is str:  # a text, in whatever form a user may have written it
        value = text_from(key, value, longest=MAX_OBJECT)
    try:
        return setting.check(value)
    except (ConfigError, RecursionError) as error:  # a deep list has no short text
        raise SpecMismatch(
            f"the run's spec has {key} {repr(value)[:60]}, not {setting.range()}"
        ) from error
