"""A computation recorded as a CUDA graph is, but on a CPU: the operations as they came."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode

from impala_redis.common.devices.graph import Computation

# For these a GPU would be waited for: they tell the host a number, or their results are as many as
# the numbers say.
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2", "equal", "is_nonzero"}


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, dict[str, Any], Any]] = []
        self.before: dict[int, tuple[Any, Any]] = {}  # the memory that was changed, and a copy

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        assert name not in WAITING, f"a GPU would be waited for: {name}"
        # The schema of batch normalisation does not say that it changes its running statistics.
        if func._schema.is_mutable or "batch_norm" in name:
            for tensor in _tensors((args, kwargs)):
                memory = tensor.untyped_storage()
                self.before.setdefault(memory.data_ptr(), (memory, memory.clone()))
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result


def recorded(computation: Computation) -> Computation:
    """Records a computation without a trace of it; what it returns does it again.

    As in a graph, numbers of Python stay those of the recording, each operation reads and writes
    the same memory each time, and nothing may be asked for.
    """
    recorder = _Recorder()
    with recorder:
        computation()
    for memory, copy in recorder.before.values():
        memory.copy_(copy)

    @torch.no_grad()
    def replay() -> None:
        for func, args, kwargs, result in recorder.calls:
            again = func(*args, **kwargs)
            for old, new in zip(_tensors(result), _tensors(again), strict=True):
                if old.untyped_storage().data_ptr() != new.untyped_storage().data_ptr():
                    old.copy_(new)

    return replay


def _tensors(result: Any) -> list[Tensor]:
    return [leaf for leaf in _pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
