"""What differs between two runs, in words that a user knows from the settings and the spaces."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from impala_redis.common.run.spaces import ActionSpec, ObservationPart, ObservationSpec

# Parts of an observation that are told, at most.
MOST_PARTS = 8


def differences(here: Mapping[str, Any], there: Mapping[str, Any]) -> str:
    """What differs, as in "lstm_size is 64 here and 32 there"; empty if nothing does.

    Args:
      here: values by name; an ObservationSpec and an ActionSpec may be among them.
      there: the other's values of the same names.
    """
    said = (words for name in here for words in _difference(name, here[name], there[name]))
    return "; ".join(said)


def action_in_words(action: ActionSpec) -> str:
    """What an action is: "one of 2 choices", "choices of 3 x 3" or "6 numbers between bounds"."""
    sizes = action.sizes
    if action.kind == "continuous":
        numbers = "1 number" if sizes == (1,) else f"{sizes[0]} numbers"
        return f"{numbers} between bounds" if action.bounded else f"{numbers} without bounds"
    if action.kind == "discrete":
        return f"one of {sizes[0]} choices"
    more = f" x ... ({len(sizes)} in all)" if len(sizes) > MOST_PARTS else ""
    return f"choices of {' x '.join(map(str, sizes[:MOST_PARTS]))}{more}"


def observation_in_words(observation: ObservationSpec) -> str:
    """What an observation is: "float32[4]", "one of 16 values", or its parts by name."""
    parts = observation.parts or observation.leaves
    told = [f"{part.name} {_part_in_words(part)}".lstrip() for part in parts[:MOST_PARTS]]
    more = len(parts) - len(told)
    return " and ".join([", ".join(told), *([f"{more} more parts"] if more else [])])


def _part_in_words(part: ObservationPart) -> str:
    if part.num_values and not part.shape:
        return f"one of {part.num_values[0]} values"
    of_values = f" of {sum(part.num_values)} values" if part.num_values else ""
    return f"{part.dtype}{list(part.shape)}{of_values}"


def _difference(name: str, here: Any, there: Any) -> Iterator[str]:
    if here == there:
        return
    words: tuple[str, str]
    if isinstance(here, ObservationSpec):
        if here.frame_stack != there.frame_stack:
            yield f"frame_stack is {here.frame_stack} here and {there.frame_stack} there"
        words = observation_in_words(here), observation_in_words(there)
        if words[0] == words[1]:
            yield from _finer_difference(here, there)
            return
    elif isinstance(here, ActionSpec):
        words = action_in_words(here), action_in_words(there)
        if words[0] == words[1]:  # of many choices the first are told
            yield _differing_sizes("the action's sizes are", here.sizes, there.sizes)
            return
    else:
        yield f"{name} is {here} here and {there} there"
        return
    yield f"the {name} is {words[0]} here and {words[1]} there"


def _finer_difference(here: ObservationSpec, there: ObservationSpec) -> Iterator[str]:
    """What differs between observations that look the same in words."""
    names = [item.name for item in fields(ObservationSpec) if item.name != "frame_stack"]
    odd = [name for name in names if getattr(here, name) != getattr(there, name)]
    if not odd:
        return
    if odd == ["scale"] or (odd == ["parts"] and _unscaled(here) == _unscaled(there)):
        yield "the bounds of the observation's numbers are not the same here and there"
        return
    for mine, theirs in zip(here.parts, there.parts, strict=False):
        if mine.num_values != theirs.num_values:
            said = f"the numbers of values of {mine.name or 'the observation'} are"
            yield _differing_sizes(said, mine.num_values, theirs.num_values)
            return
    yield f"the observation's {' and '.join(odd)} are not the same here and there"


def _differing_sizes(said: str, here: tuple[int, ...], there: tuple[int, ...]) -> str:
    """Words for two lists of sizes, from the first that differs on."""
    first = next((i for i, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), 0)
    mine, theirs = (
        ", ".join(map(str, sizes[first : first + MOST_PARTS])) for sizes in (here, there)
    )
    start = f", from number {first + 1} on," if first else ""
    return f"{said}{start} {mine} here and {theirs} there"


def _unscaled(observation: ObservationSpec) -> list[tuple[Any, ...]]:
    return [
        tuple(getattr(part, item.name) for item in fields(part) if item.name != "scale")
        for part in observation.leaves
    ]
