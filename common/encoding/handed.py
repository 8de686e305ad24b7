"""What a network of the user's own is handed of an observation, and the space that describes it.

It is what stable-baselines3 hands to a features extractor: a picture of bytes with its colours in
front, between 0 and 1; other numbers as they are; categories one-hot, side by side. The parts of a
Dict come by their keys, those of a Tuple by their numbers as texts. Frames of a stack are a
dimension in front, where one grey picture has its one colour.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from impala_redis.common.encoding.fitting import Space
from impala_redis.common.encoding.given_masks import is_wrapped
from impala_redis.common.encoding.space_text import spaces_in
from impala_redis.common.errors import ConfigError
from impala_redis.common.run.architecture import picture_of
from impala_redis.common.run.spaces import TEXT_BUCKETS, TEXT_WORDS, ObservationPart
from impala_redis.common.run.spec import RunSpec


class HandedPart(NamedTuple):
    """How one part of an observation is handed over."""

    part: ObservationPart  # where it lies in the observation
    path: tuple[str, ...]  # the keys that lead to it; empty if it is the whole
    is_picture: bool  # it is divided by 255
    colours_last: bool  # the picture's colours are moved to the front
    shape: tuple[int, ...]  # of what is handed over, behind the batch


class Handed(NamedTuple):
    """What a network of the user's own is made from, and how its input is made."""

    space: Space  # of what is handed over; a picture's is of bytes, as before its division
    parts: tuple[HandedPart, ...]


def handed_over(spec: RunSpec) -> Handed:
    """What the run's network is handed. Raises ConfigError: its spaces are not known, or others."""
    if not spec.spaces:
        raise ConfigError(
            f"the spaces of {spec.env} cannot be told in a run's spec, and the network "
            f"{spec.network} is made from them; give Dict spaces keys that are texts, and fewer "
            "values"
        )
    space = spaces_in(spec.spaces)[0]
    flat, parts = list(_flat(space, ())), spec.observation.parts or spec.observation.leaves
    seen = [(*one, part) for one, part in zip(flat, parts, strict=False)]
    if len(flat) != len(parts) or not all(_fits(one, part) for _, one, part in seen):
        raise ConfigError(f"the spaces of {spec.env} in the run's spec are not its observations")
    leaves = set(spec.observation.leaves)  # without an action mask, which is no input
    kept = [one for one in seen if one[-1] in leaves]
    if spec.mask_from == "info" and is_wrapped(space):  # the mask's own wrapper has put it there
        kept = [(path[1:], one, part) for path, one, part in kept]
    stack = spec.observation.frame_stack
    handed = [_handed(one, part, path, stack) for path, one, part in kept]
    whole = _nested([(part.path, one) for one, part in handed])
    return Handed(whole, tuple(part for _, part in handed))


def in_place(parts: tuple[HandedPart, ...], of: Callable[[HandedPart], Any]) -> Any:
    """One value for each part, as dicts by their keys; the value itself if there is but one."""
    if [part.path for part in parts] == [()]:
        return of(parts[0])
    whole: dict[str, Any] = {}
    for part in parts:
        inner = whole
        for key in part.path[:-1]:
            inner = inner.setdefault(key, {})
        inner[part.path[-1]] = of(part)
    return whole


def _flat(space: Space, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Space]]:
    """The spaces without parts in a space, in the order of an observation's parts."""
    inside: Any = ()
    if isinstance(space, spaces.Dict):
        inside = space.spaces.items()
    elif isinstance(space, spaces.Tuple):
        inside = enumerate(space.spaces)
    elif 0 not in (space.shape or ()):
        yield path, space
    for key, inner in inside:
        yield from _flat(inner, (*path, str(key)))


def _fits(space: Space, part: ObservationPart) -> bool:
    shape = (TEXT_WORDS,) if isinstance(space, spaces.Text) else tuple(space.shape or ())
    return shape == part.shape and isinstance(space, _WITH_VALUES) == bool(part.num_values)


_WITH_VALUES = (spaces.Discrete, spaces.MultiDiscrete, spaces.Text)


def _handed(
    space: Space, part: ObservationPart, path: tuple[str, ...], stack: int
) -> tuple[Space, HandedPart]:
    """The space of what is handed over of a part, and how that is made."""
    frames = (stack,) if stack > 1 else ()
    if isinstance(space, _WITH_VALUES):
        shape = (*frames, sum(part.num_values))
        if isinstance(space, spaces.Text):
            space = spaces.MultiDiscrete([TEXT_BUCKETS] * TEXT_WORDS)
        if frames:  # categories have no space with a dimension of frames
            space = spaces.Box(0.0, 1.0, shape, np.float32)
        return space, HandedPart(part, path, False, False, shape)
    if isinstance(space, spaces.MultiBinary):
        shape = (*frames, *part.shape)
        return spaces.MultiBinary(list(shape)), HandedPart(part, path, False, False, shape)
    assert isinstance(space, spaces.Box)
    is_picture = part.is_picture and bool((space.low == 0).all() and (space.high == 255).all())
    colours_last = is_picture and picture_of(part).colours_last
    low, high = (np.moveaxis(b, -1, 0) if colours_last else b for b in (space.low, space.high))
    if is_picture and low.ndim == 2 and not frames:
        low, high = low[None], high[None]
    shape = (*frames, *low.shape)
    dtype: Any = space.dtype
    box = spaces.Box(np.broadcast_to(low, shape), np.broadcast_to(high, shape), shape, dtype)
    return box, HandedPart(part, path, is_picture, colours_last, shape)


def _nested(pairs: list[tuple[tuple[str, ...], Space]]) -> Space:
    """The spaces as Dict spaces by their keys; the space itself if it is the whole."""
    if [path for path, _ in pairs] == [()]:
        return pairs[0][1]
    keys = dict.fromkeys(path[0] for path, _ in pairs)
    return spaces.Dict(
        [(key, _nested([(path[1:], one) for path, one in pairs if path[0] == key])) for key in keys]
    )
