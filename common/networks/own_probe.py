"""What a network of the user's own is, and whether one can train with it: tried before the run.

A network that treats a row otherwise beside other rows would act otherwise than it learns, and
V-trace would weigh all that it played wrongly. Nothing else would show it.
"""

import contextlib
import dataclasses
import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from impala_redis.common.encoding.handed import Handed, HandedPart, handed_over
from impala_redis.common.networks.own_input import OwnInput
from impala_redis.common.networks.own_module import failing, flaw, made, outside_of
from impala_redis.common.networks.own_module import persistent_buffers as buffers_of
from impala_redis.common.networks.torsos import Normalizer
from impala_redis.common.run.limits import check_size
from impala_redis.common.run.own_network import OwnNetwork
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.user_code import parts

log = logging.getLogger(__name__)

# Rows and columns of the observations that it is tried on.
T, B = 3, 2
# Features of a row may differ by so much of the largest: products of another shape add up in
# another order.
ROUNDING = 1e-3
# Up to here float32, in which buffers travel, has every whole number.
MOST_WHOLE = 2**24
# Numbers without near bounds are tried within these.
_TRIED = 1000.0


def find_out(spec: RunSpec) -> OwnNetwork:
    """The outside of the network that a run without `own` names, once it has been tried.

    Raises ConfigError: it cannot be made or trained with, or it is too large.
    """
    handed, name = handed_over(spec), spec.network
    parts.imported(name, "network")  # here, for what it makes when imported is no tensor of shapes
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        # First without memory for its numbers: one that is too large must not fill the machine.
        outside: OwnNetwork | None = None
        with contextlib.suppress(Exception), torch.device("meta"):
            outside = outside_of(made(name, spec.network_config, handed), name)
        if outside is not None:
            check_size(dataclasses.replace(spec, own=outside))
        module = made(name, spec.network_config, handed)
        own = outside_of(module, name)
        check_size(dataclasses.replace(spec, own=own))
        _check_buffers(name, module)
        trial = _Trial(spec, own, module, handed)
        trial.compare_rows()
        trial.differentiate()
    return own


class _Trial:
    """A fresh module and random observations [T, B, ...] for it."""

    def __init__(self, spec: RunSpec, own: OwnNetwork, module: nn.Module, handed: Handed) -> None:
        self._name, self._own, self._module = spec.network, own, module
        fresh = Normalizer(spec.network, spec.observation) if spec.normalize_observations else None
        self._input = OwnInput(handed, bool(spec.observation.parts), fresh)
        self._seen = torch.from_numpy(_observations(spec, handed))
        self._is_first = torch.zeros(T, B, dtype=torch.bool)
        self._is_first[0] = True
        self._is_first[-1, -1] = True

    @torch.no_grad()
    def compare_rows(self) -> None:
        """Raises ConfigError: rows one by one have other features than all at once."""
        self._module.eval()
        begun = torch.full((B, self._own.memory_size), 0.5)  # to be emptied by itself
        features, memory = self._features(slice(0, T), slice(0, B), begun)
        single = torch.zeros_like(features)
        for b in range(B):
            before = torch.zeros(1, self._own.memory_size)
            for t in range(T):
                if self._is_first[t, b]:
                    before = torch.zeros_like(before)
                one, before = self._features(slice(t, t + 1), slice(b, b + 1), before)
                single[t, b] = one[0, 0]
            self._compare(memory[b], before[0], "memory")
        self._compare(features, single, "features")

    def differentiate(self) -> None:
        """Raises ConfigError: there is no gradient, or none a second time."""
        self._module.train()
        trained = {n: p for n, p in self._module.named_parameters() if p.requires_grad}
        if not trained:
            return
        unused: list[str] = []
        for _ in range(2):
            empty = torch.zeros(B, self._own.memory_size)
            features, _ = self._features(slice(0, T), slice(0, B), empty)
            if not features.requires_grad:
                raise flaw(
                    self._name,
                    "its features have no gradient; its forward must not detach them, nor compute "
                    "in numpy or under no_grad",
                )
            with failing(self._name, "its backward pass"):
                gradients = torch.autograd.grad(
                    features.square().mean(), list(trained.values()), allow_unused=True
                )
            unused = [n for n, g in zip(trained, gradients, strict=True) if g is None]
        if unused:
            log.warning(
                "%d parameters of the network %s have no part in its features, and stay as they "
                "are: %s",
                *(len(unused), self._name, ", ".join(unused)[:200]),
            )

    def _features(self, rows: slice, columns: slice, memory: Tensor) -> tuple[Tensor, Tensor]:
        """Features [R, C, F] of some rows and columns, and the memory [C, M] after them, checked.

        Raises ConfigError: they have another form, or are not finite.
        """
        seen, is_first = self._seen[rows, columns], self._is_first[rows, columns]
        leading = tuple(is_first.shape)
        with failing(self._name, "forward"):
            if self._own.memory_size:
                out: Any = self._module(self._input(seen, leading=2), memory, is_first)
            else:
                out = self._module(self._input(seen.flatten(0, 1)))
        if not self._own.memory_size:
            width = (leading[0] * leading[1], self._own.features_dim)
            self._check("its forward", out, width, "[batch, features_dim]")
            return out.view(*leading, -1), memory
        if not isinstance(out, tuple) or len(out) != 2:
            raise flaw(self._name, "its forward gives no pair of features and memory; return both")
        of_memory = (leading[1], self._own.memory_size)
        self._check(
            "its forward", out[0], (*leading, self._own.features_dim), "[T, B, features_dim]"
        )
        self._check("the memory of its forward", out[1], of_memory, "[B, memory_size]")
        return out[0], out[1]

    def _check(self, what: str, out: Any, shape: tuple[int, ...], form: str) -> None:
        if not isinstance(out, Tensor):
            raise flaw(self._name, f"{what} is a {type(out).__name__}, not a tensor {form}")
        if tuple(out.shape) != shape or out.dtype != torch.float32:
            dtype = str(out.dtype).removeprefix("torch.")
            raise flaw(
                self._name,
                f"{what} is {dtype}{list(out.shape)}, and must be {form}, here "
                f"float32{list(shape)}",
            )
        if not out.isfinite().all():
            raise flaw(self._name, f"{what} holds a NaN or an infinity, for fresh weights already")

    def _compare(self, together: Tensor, alone: Tensor, what: str) -> None:
        if not together.numel():
            return
        far = float((together - alone).abs().max())
        if far <= ROUNDING * max(1.0, float(alone.abs().max())):
            return
        remedy = (
            "it must empty its memory itself where is_first is true, before that row, and go "
            "through the rows in their order"
            if self._own.memory_size
            else "each row must be computed by itself, without chance, in eval mode"
        )
        raise flaw(
            self._name,
            f"rows one by one give another {what} than several at once, by {far:.2g}, so it would "
            f"act otherwise than it learns; {remedy}",
        )


def _check_buffers(name: str, module: nn.Module) -> None:
    """Raises ConfigError: a buffer holds what cannot travel."""
    for buffer, values in buffers_of(module).items():
        largest = values.double().abs().max()
        is_whole = not values.is_floating_point()
        if not largest.isfinite() or (is_whole and largest > MOST_WHOLE):
            what = f"whole numbers above {MOST_WHOLE:,}" if is_whole else "a NaN or an infinity"
            raise flaw(
                name,
                f"the buffer {buffer} holds {what}, which cannot travel; if it is a constant, "
                "register it with persistent=False",
            )


def _observations(spec: RunSpec, handed: Handed) -> NDArray[Any]:
    """Random observations of the run's spaces [T, B, (S,) ...] as they travel."""
    observation, rng = spec.observation, np.random.default_rng(0)
    stack = (observation.frame_stack,) if observation.frame_stack > 1 else ()
    leading = (T, B, *stack)
    if not observation.parts:
        return _values(handed.parts[0], handed.space, leading, rng)
    rows = np.zeros((*leading, *observation.shape), np.uint8)
    for part in handed.parts:
        space = handed.space
        for key in part.path:
            space = space[key]  # type: ignore[index]
        values = np.ascontiguousarray(_values(part, space, leading, rng)).reshape(*leading, -1)
        place = slice(part.part.start, part.part.start + part.part.num_bytes)
        rows[..., place] = values.view(np.uint8)
    return rows


def _values(
    handed: HandedPart, space: Any, leading: tuple[int, ...], rng: np.random.Generator
) -> NDArray[Any]:
    """Random values of one part, as they travel."""
    part, shape = handed.part, (*leading, *handed.part.shape)
    dtype = np.dtype(part.dtype)
    if part.num_values:
        limits = np.array(part.num_values).reshape(part.shape)
        return np.asarray(rng.integers(0, limits, shape)).astype(dtype)
    if handed.is_picture or not hasattr(space, "low"):
        return np.asarray(rng.integers(0, 256 if handed.is_picture else 2, shape)).astype(dtype)
    frames = handed.shape[: len(handed.shape) - len(part.shape)]
    low, high = (np.asarray(b, np.float64)[(0,) * len(frames)] for b in (space.low, space.high))
    least, most = np.clip(low, -_TRIED, None), np.clip(high, None, _TRIED)
    least, most = np.minimum(least, high), np.maximum(most, low)
    if dtype.kind == "f":
        return np.clip(rng.normal(size=shape), least, most).astype(dtype)
    return np.floor(rng.uniform(least, most + 1, shape)).clip(least, most).astype(dtype)
