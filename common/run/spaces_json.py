"""Observations and actions read back from a spec's JSON; nothing in it is trusted.

Every function raises SpecMismatch for a value of another type or out of its range.
"""

import dataclasses
from math import prod
from typing import Any

from impala_redis.common.errors import SpecMismatch
from impala_redis.common.run.differences import action_in_words
from impala_redis.common.run.spaces import (
    ITEM_BYTES,
    MASK_NAME,
    MAX_CHOICES,
    MAX_DIMENSIONS,
    MAX_OBSERVATION_SIZE,
    MAX_PARTS,
    MAX_SCALE,
    OBSERVATION_DTYPES,
    ActionSpec,
    ObservationPart,
    ObservationSpec,
)
from impala_redis.common.settings.declaring import MAX_FRAME_STACK, MAX_ITEMS, MAX_TEXT


def observation_from(document: Any) -> ObservationSpec:
    """The observation in a JSON value."""
    fields = _fields_from("observation", document, ObservationSpec)
    shape, dtype = _array_from("observation", fields)
    values = fields["num_values"]
    if values is not None:
        values = whole_number_from("observation.num_values", values, 1, MAX_CHOICES)
        if shape or dtype != "int64":
            raise SpecMismatch("the run's spec has num_values for what is not an int64 index")
    found = fields["parts"]
    if not isinstance(found, list) or len(found) > MAX_PARTS:
        raise SpecMismatch(f"the run's spec has observation.parts {str(found)[:60]}, not a list")
    parts = tuple(map(_part_from, found))
    if parts and (dtype, values, len(shape)) != ("uint8", None, 1):
        raise SpecMismatch("the run's spec has parts of what is not a row of bytes")
    if parts and shape[0] < max(part.start + part.num_bytes for part in parts):
        raise SpecMismatch("the run's spec has parts that are not inside their row")
    stack = whole_number_from("observation.frame_stack", fields["frame_stack"], 1, MAX_FRAME_STACK)
    scale = _scale_from(fields["scale"], shape)
    if scale and (parts or values is not None):
        raise SpecMismatch("the run's spec has a scale for what is not an array of numbers")
    mask = text_from("observation.mask", fields["mask"], ("", MASK_NAME))
    if mask:
        _check_mask([part for part in parts if part.name == mask], len(parts))
    return ObservationSpec(shape, dtype, values, parts, stack, scale, mask)


def action_from(document: Any) -> ActionSpec:
    """The action in a JSON value."""
    fields = _fields_from("action", document, ActionSpec)
    kind = text_from("action.kind", fields["kind"], ("discrete", "multi_discrete", "continuous"))
    sizes = _whole_numbers_from("action.sizes", fields["sizes"], 1, MAX_CHOICES)
    bounded = fields["bounded"]
    if not isinstance(bounded, bool) or (bounded and kind != "continuous"):
        raise SpecMismatch(f"the run's spec has action.bounded {str(bounded)[:60]}")
    if not sizes or (len(sizes) > 1 and kind != "multi_discrete") or sum(sizes) > MAX_CHOICES:
        raise SpecMismatch(f"the run's spec has action.sizes {str(sizes)[:60]}")
    return ActionSpec(kind, sizes, bounded)  # type: ignore[arg-type]


def check_fit(observation: ObservationSpec, action: ActionSpec) -> None:
    """Checks that the mask, if there is one, has a byte for each choice of an action."""
    mask = observation.mask_part
    if mask and (action.kind == "continuous" or mask.shape != (sum(action.sizes),)):
        raise SpecMismatch(
            f"the run's spec has an action mask of {prod(mask.shape)} numbers, and an action is "
            f"{action_in_words(action)}"
        )


def text_from(name: str, value: Any, choices: tuple[str, ...] = (), longest: int = MAX_TEXT) -> str:
    """A text of at most `longest` characters, and one of `choices` if there are some."""
    if not isinstance(value, str) or len(value) > longest or (choices and value not in choices):
        raise SpecMismatch(f"the run's spec has {name} {str(value)[:60]!r}")
    return value


def whole_number_from(name: str, value: Any, least: int, most: int) -> int:
    """A whole number in least .. most; a bool is none."""
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise SpecMismatch(f"the run's spec has {name} {str(value)[:60]}, not {least} to {most}")
    return value


def _check_mask(named: list[ObservationPart], num_parts: int) -> None:
    """Checks the parts that have the mask's name: it is one of bytes, beside others."""
    is_one = len(named) == 1 and (named[0].dtype, named[0].num_values) == ("uint8", ())
    if not is_one or num_parts == 1:
        raise SpecMismatch("the run's spec has a mask that is not one of several parts, in bytes")


def _part_from(document: Any) -> ObservationPart:
    fields = _fields_from("observation.parts", document, ObservationPart)
    shape, dtype = _array_from("observation.parts", fields)
    values = _whole_numbers_from(
        "num_values", fields["num_values"], 1, MAX_CHOICES, longest=MAX_OBSERVATION_SIZE
    )
    if values and (len(values) != prod(shape) or "int" not in dtype):
        raise SpecMismatch("the run's spec has num_values that do not fit their part")
    start = whole_number_from("start", fields["start"], 0, MAX_OBSERVATION_SIZE)
    if start % ITEM_BYTES[dtype]:
        raise SpecMismatch("the run's spec has a part that does not start at a whole item")
    scale = _scale_from(fields["scale"], shape)
    if scale and values:
        raise SpecMismatch("the run's spec has a scale for categories")
    return ObservationPart(text_from("name", fields["name"]), shape, dtype, values, start, scale)


def _scale_from(value: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    scale = _whole_numbers_from("scale", value, 1, MAX_SCALE, longest=MAX_OBSERVATION_SIZE)
    if len(scale) not in (0, 1, prod(shape)):
        raise SpecMismatch("the run's spec has a scale that does not fit its numbers")
    return scale


def _array_from(name: str, fields: dict[str, Any]) -> tuple[tuple[int, ...], str]:
    shape = _whole_numbers_from(f"{name}.shape", fields["shape"], 0, MAX_OBSERVATION_SIZE)
    if len(shape) > MAX_DIMENSIONS or not 0 < prod(shape) <= MAX_OBSERVATION_SIZE:
        raise SpecMismatch(
            f"the run's spec has an observation of shape {shape}: empty or too large"
        )
    return shape, text_from("dtype", fields["dtype"], OBSERVATION_DTYPES)


def _fields_from(name: str, document: Any, of: type) -> dict[str, Any]:
    """The document, if it has exactly the fields of the dataclass `of`."""
    expected = [item.name for item in dataclasses.fields(of)]
    if not isinstance(document, dict) or set(document) != set(expected):
        raise SpecMismatch(f"the run's spec has {name} without {', '.join(expected)}")
    return document


def _whole_numbers_from(
    name: str, value: Any, least: int, most: int, longest: int = MAX_ITEMS
) -> tuple[int, ...]:
    if not isinstance(value, list) or len(value) > longest:
        raise SpecMismatch(f"the run's spec has {name} {str(value)[:60]}, not a list")
    return tuple(whole_number_from(name, item, least, most) for item in value)
