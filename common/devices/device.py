"""The device that torch computes on: which one, and whether it has memory."""

import contextlib
import logging
import re
from collections.abc import Iterator

import torch

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
        why = first_words(error)
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
        why = first_words(error)
        raise DeviceFull(
            f"the GPU has no memory left ({why}); end what else uses it, lower --batch-size of a "
            "learner or --envs of an actor, or take --device cpu, and go on with a learner's "
            "--resume"
        ) from error


@contextlib.contextmanager
def fastest_methods() -> Iterator[None]:
    """Wraps convolutions whose shapes come again and again: it is tried which method is fastest."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def round_factors(rounded: bool) -> None:
    """Whether a GPU rounds the factors of products to ten bits (TF32) from now on.

    It is so for the whole process, as gradients are computed on a thread of torch's own.
    """
    torch.backends.cudnn.allow_tf32 = rounded
    torch.backends.cuda.matmul.allow_tf32 = rounded


def first_words(error: RuntimeError) -> str:
    """The start of torch's message; the rest is about its own pools and debugging kernels."""
    return str(error).partition(". GPU")[0].partition("\n")[0]
