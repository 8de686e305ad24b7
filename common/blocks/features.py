"""What a network without convolutions is told of observations: one row of numbers for each."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from impala_redis.common.blocks.trajectory import taken_out
from impala_redis.common.run.architecture import NetworkSpec, normalized_parts
from impala_redis.common.run.kinds import TEXTS
from impala_redis.common.run.spaces import (
    MOST_NORMALIZED,
    TEXT_WORDS,
    ObservationPart,
    ObservationSpec,
)

Floats = NDArray[np.float32]
# What each word of a part that is a text becomes [TEXT_BUCKETS, E]; zeros where there is no word.
Embeddings = Mapping[ObservationPart, Floats]


class Normalizer(NamedTuple):
    """Running figures by which numbers get a mean near 0 and a deviation near 1."""

    parts: Mapping[str, slice]  # the place of each normalised part, by its name
    mean: Floats  # [E]
    inverse_std: Floats  # [E]

    def apply(self, part: ObservationPart, numbers: Floats) -> Floats:
        """A part's numbers [N, S * E], the frames of a stack one after the other, normalised.

        A part that is not to be normalised stays as it is. The largest numbers end at the clip.
        """
        if part.name not in self.parts:
            return numbers
        place = self.parts[part.name]
        frames = numbers.reshape(len(numbers), -1, place.stop - place.start)
        with np.errstate(over="ignore"):
            made = (frames - self.mean[place]) * self.inverse_std[place]
        return made.clip(-MOST_NORMALIZED, MOST_NORMALIZED, out=made).reshape(numbers.shape)


def normalizer_of(spec: NetworkSpec, weights: Mapping[str, Floats]) -> Normalizer | None:
    """The normalizer among a network's weights; None if its observations are not normalised."""
    if not spec.normalize_observations:
        return None
    return Normalizer(
        normalized_parts(spec.network, spec.observation),
        weights["normalizer.mean"],
        weights["normalizer.inverse_std"],
    )


def embeddings_of(spec: NetworkSpec, weights: Mapping[str, Floats]) -> Embeddings:
    """The embeddings among a network's weights, to be added up; none if words are one-hot."""
    if not TEXTS[spec.text].embedding_size:
        return {}
    texts = (part for part in spec.observation.leaves if part.is_text)
    found = {part: weights[f"texts.{index}.embedding"] for index, part in enumerate(texts)}
    return {part: np.pad(words, ((1, 0), (0, 0))) for part, words in found.items()}


def features(
    spec: ObservationSpec,
    observations: NDArray[Any],
    normalizer: Normalizer | None = None,
    embeddings: Embeddings | None = None,
) -> Floats:
    """Inputs [N, F] of a network without convolutions, from observations [N, ...] or stacks."""
    embeddings = embeddings or {}
    found = [
        _sums(embeddings[part], taken_out(part, observations))
        if part in embeddings
        else features_of(spec, part, observations)
        for part in spec.leaves
    ]
    if normalizer is not None:
        found = [normalizer.apply(part, one) for part, one in zip(spec.leaves, found, strict=True)]
    return found[0] if len(found) == 1 else np.hstack(found)


def features_of(spec: ObservationSpec, part: ObservationPart, observations: NDArray[Any]) -> Floats:
    """What a part of observations [N, ...], or of stacks of them, gives [N, F].

    Categories become one-hot, and numbers are divided by the part's scale.
    """
    if spec.parts:
        observations = taken_out(part, observations)
    return _features(part, observations.reshape(len(observations), -1))


def _sums(embeddings: Floats, words: NDArray[Any]) -> Floats:
    """Words of texts [N, (S,) TEXT_WORDS] as the sums of their embeddings [N, S * E]."""
    texts = words.reshape(-1, TEXT_WORDS)
    sums: Floats = embeddings[texts].sum(axis=1)
    return sums.reshape(len(words), -1)


def _features(part: ObservationPart, values: NDArray[Any]) -> Floats:
    """Values [N, E] as [N, F]: categories one-hot, numbers divided by the part's scale."""
    if part.num_values:
        sizes = np.tile(part.num_values, values.shape[1] // len(part.num_values))
        first = np.cumsum(sizes) - sizes
        one_hot = np.zeros((len(values), sizes.sum()), np.float32)
        np.put_along_axis(one_hot, first + values.astype(np.int64), 1.0, axis=1)
        return one_hot
    numbers = cast(Floats, values.astype(np.float32, copy=False))
    if len(part.scale) > 1:  # E is a multiple: the frames of a stack follow each other
        return (numbers.reshape(len(numbers), -1, len(part.scale)) / _table(part.scale)).reshape(
            numbers.shape
        )
    return numbers / np.float32(part.scale[0]) if part.scale else numbers


@lru_cache(maxsize=64)  # it takes longer to make than to use
def _table(scale: tuple[int, ...]) -> Floats:
    return np.array([float(number) for number in scale], np.float32)
