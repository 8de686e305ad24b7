"""Memory of the host that a GPU copies from in the background."""

import logging

from torch import Tensor

from impala_redis.common.devices.device import first_words

log = logging.getLogger(__name__)


def pinned_if_possible(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in memory that a GPU copies from in the background, if the system gives any."""
    try:
        return {name: tensor.pin_memory() for name, tensor in tensors.items()}
    except RuntimeError as error:
        log.warning("no pinned memory, so updates wait for copies (%s)", first_words(error))
        return tensors
