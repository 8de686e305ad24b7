"""CUDA graphs: a computation is recorded once, and from then on asked for by one call.

The host needs up to 25 microseconds to ask for one operation, and small ones take a GPU two. What
is recorded are operations and addresses: whatever changes from one time to the next has to lie in
the same memory each time, numbers of Python stay as they were, and nothing may ask for a result.
"""

import gc
from collections.abc import Callable

import torch

Computation = Callable[[], None]
# Records a computation without doing it; what it returns does it.
Capture = Callable[[Computation], Computation]

# Graphs that could not be recorded are kept: torch's allocator may still ask them.
_broken_off: list[torch.cuda.CUDAGraph] = []


def capture_for(device: torch.device) -> Capture | None:
    """How computations are recorded on a device; None where they cannot be."""
    return captured if device.type == "cuda" else None


def captured(computation: Computation) -> Computation:
    """The computation as a CUDA graph. Raises RuntimeError where torch cannot record it.

    It must have been done before, for what libraries prepare the first time is not recorded.
    """
    gc.collect()  # what an earlier computation left in a circle would be freed while recording
    before, graph = torch.cuda.current_stream(), torch.cuda.CUDAGraph()
    try:
        # Other threads, which copy batches and weights meanwhile, are none of its business.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            computation()
    except RuntimeError as error:
        torch.cuda.set_stream(before)  # a recording that was broken off leaves its own
        _broken_off.append(graph)
        cause = error.__context__  # the error itself may only say that there was one
        raise cause if isinstance(cause, RuntimeError) else error from None
    return graph.replay
