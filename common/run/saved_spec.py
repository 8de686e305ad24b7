"""The run's spec as a checkpoint holds it, written by this or by any earlier version.

What travels through Redis must be of one version on both sides: `RunSpec.from_json` reads that
alone. A file outlives the version that wrote it. So an earlier form is turned into the next one,
step by step, and a field that it does not have yet gets the value that it had in effect.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping
from typing import Any

from impala_redis import __version__
from impala_redis.common.errors import SpecMismatch, printable
from impala_redis.common.run.spaces import ActionSpec, ObservationPart, ObservationSpec
from impala_redis.common.run.spec import WIRE_VERSION, RunSpec

Document = dict[str, Any]

# Checkpoints and config.toml say it, so that a version that cannot read them names theirs.
MADE_BY = f"impala-redis {__version__}"


def read_saved_spec(facts: Mapping[str, Any], file: object) -> RunSpec:
    """The spec among a checkpoint's facts, in the form of this version.

    Args:
      facts: what the checkpoint says beside its tensors: `spec`, and `made_by` since 0.2.
      file: the name of the checkpoint's file, for messages.

    Raises SpecMismatch: it is none, it is damaged, or a newer version wrote it.
    """
    name = printable(file)
    try:
        document = json.loads(str(facts.get("spec")))
    except (ValueError, RecursionError) as error:
        raise SpecMismatch(f"{name} holds no spec of a run: {str(error)[:200]}") from error
    version = document.get("wire_version") if isinstance(document, dict) else None
    if type(version) is not int or version < 1:
        raise SpecMismatch(f"{name} holds no spec of a run: it has no wire_version")
    if version > WIRE_VERSION:
        raise SpecMismatch(
            f"{name} was made by {maker(facts)} (wire version {version}, this one reads 1 to "
            f"{WIRE_VERSION}); install that version"
        )
    for step in range(version, WIRE_VERSION):
        _UPGRADES.get(step, _nothing)(document)
    _fill(document)
    try:
        return RunSpec.from_json(json.dumps(document | {"wire_version": WIRE_VERSION}))
    except SpecMismatch as error:
        raise SpecMismatch(f"{name}, made by {maker(facts)}, cannot be read: {error}") from error


def maker(facts: Mapping[str, Any]) -> str:
    """Which version wrote a file, in words. Files have said so under `made_by` since 0.2."""
    found = facts.get("made_by")
    return printable(found)[:80] if isinstance(found, str) else "another version of impala-redis"


def _nothing(document: Document) -> None:
    """The form of this version became the next one by new fields alone, or on the wire alone."""


def _one_choice(document: Document) -> None:
    """Until version 2 an action was one choice, and the spec gave the number of choices."""
    document["action"] = {"kind": "discrete", "sizes": [document.pop("num_actions", None)]}


# What turns the spec of a version into that of the next one; new fields are filled in afterwards.
_UPGRADES: dict[int, Callable[[Document], None]] = {2: _one_choice}


def _fill(document: Document) -> None:
    """Gives every field that is missing its default: it means what was done before."""
    _complete(document, RunSpec)
    observation = document.get("observation")
    _scale_bytes(observation)
    _complete(observation, ObservationSpec)
    _complete(document.get("action"), ActionSpec)
    parts = observation.get("parts") if isinstance(observation, dict) else None
    for part in parts if isinstance(parts, list | tuple) else ():
        _scale_bytes(part)
        _complete(part, ObservationPart)


def _scale_bytes(document: Any) -> None:
    """Until 0.2 bytes that are numbers were divided by 255 whatever their bounds, nothing else."""
    if isinstance(document, dict) and "scale" not in document:
        is_bytes = document.get("dtype") == "uint8"
        is_other = document.get("num_values") or document.get("parts")
        document["scale"] = [255] if is_bytes and not is_other else []


def _complete(document: Any, of: type) -> None:
    """Adds the defaults of a dataclass to its JSON form; what is no object is refused later."""
    if not isinstance(document, dict):
        return
    for item in dataclasses.fields(of):
        if item.default is not dataclasses.MISSING:
            document.setdefault(item.name, item.default)
        elif item.default_factory is not dataclasses.MISSING:
            document.setdefault(item.name, item.default_factory())
