"""The device that the learner computes on: which one, whether it has memory, and its clock."""

import contextlib
import itertools
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from impala_redis.common.errors import ConfigError, DeviceFull

log = logging.getLogger(__name__)

SAYS_FULL = re.compile("out of memory|ALLOC_FAILED")


def choose_device(wanted: str) -> torch.device:
    """ "auto", "cpu" or "cuda" as a device.

    Raises ConfigError, if a GPU is wanted and torch can use none, and DeviceFull.
    """
    if wanted == "cpu" or (wanted == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise ConfigError("this torch finds no GPU; use --device cpu, or install a CUDA build")
    try:
        with enough_memory():
            torch.ones(1, device="cuda").add_(1).item()
    except RuntimeError as error:  # a GPU that is too old for this build, for example
        why = _first_words(error)
        if wanted == "cuda":
            raise ConfigError(f"torch cannot use the GPU ({why}); use --device cpu") from error
        log.warning("learning on the CPU, since torch cannot use the GPU: %s", why)
        return torch.device("cpu")
    return torch.device("cuda")


@contextlib.contextmanager
def enough_memory() -> Iterator[None]:
    """Wraps work on a GPU. Raises DeviceFull where its memory does not suffice."""
    try:
        yield
    except RuntimeError as error:
        # Only torch's own pools raise OutOfMemoryError; CUDA itself and cuBLAS have only words.
        if not isinstance(error, torch.OutOfMemoryError) and not SAYS_FULL.search(str(error)):
            raise
        why = _first_words(error)
        raise DeviceFull(
            f"the GPU has no memory left ({why}); end what else uses it, lower --batch-size, or "
            "take --device cpu, and go on with --resume"
        ) from error


def pinned_if_possible(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in memory that a GPU copies from in the background, if the system gives any."""
    try:
        return {name: tensor.pin_memory() for name, tensor in tensors.items()}
    except RuntimeError as error:
        log.warning("no pinned memory, so updates wait for copies (%s)", _first_words(error))
        return tensors


class Stages:
    """How long the stages of an update took, one after the other.

    A GPU's stages are measured on the GPU, in its order of work: nothing waits for the measuring.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._names: list[str] = []
        self._moments = [self._now()]

    def end(self, stage: str) -> None:
        """Ends a stage, and begins the next."""
        self._names.append(stage)
        self._moments.append(self._now())

    def seconds(self) -> dict[str, float]:
        """Seconds by stage; waits until a GPU has ended the last one."""
        if self._on_gpu:
            self._moments[-1].synchronize()
            took = [a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(self._moments)]
        else:
            took = [b - a for a, b in itertools.pairwise(self._moments)]
        return dict(zip(self._names, took, strict=True))

    def _now(self) -> Any:
        """The present moment: of the clock, or an event in the GPU's order of work."""
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
        event.record()
        return event


def _first_words(error: RuntimeError) -> str:
    """The start of torch's message; the rest is about its own pools and debugging kernels."""
    return str(error).partition(". GPU")[0].partition("\n")[0]
