"""What a device does during some calls: its kernels, and for what the host waits."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

Call = Callable[[], object]


class Kernels(NamedTuple):
    """What a device did for one call, on average."""

    busy_s: float  # in which at least one kernel or copy ran
    count: float  # of kernels and copies; on a CPU, of torch's operations
    waits: dict[str, float]  # of the host for the device: how often, by the name of CUDA's function


def kernels(call: Call, calls: int, device: torch.device) -> Kernels:
    """The device's work for each of some calls."""
    on_gpu = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if on_gpu else ProfilerActivity.CPU]) as seen:
        for _ in range(calls):
            call()
        if on_gpu:
            torch.cuda.synchronize()  # by cudaDeviceSynchronize, which no update calls
    wanted = DeviceType.CUDA if on_gpu else DeviceType.CPU
    events = list(seen.events() or ())
    spans = [(e.time_range.start, e.time_range.end) for e in events if e.device_type == wanted]
    waits = Counter(event.name for event in events if event.name.endswith("Synchronize"))
    return Kernels(
        covered(spans) / 1e6 / calls,
        len(spans) / calls,
        {name: count / calls for name, count in waits.items()},
    )


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """How long at least one of the spans (start, end) lasted, in their unit."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def implicit_waits(call: Call, calls: int, device: torch.device) -> list[str]:
    """Where calls make the host wait for a GPU without saying so: a line of code for each wait.

    An update waits for its figures by an event, which is not among these.
    """
    if device.type != "cuda":
        for _ in range(calls):
            call()
        return []
    torch.cuda.synchronize()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            for _ in range(calls):
                call()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    return [
        f"{warning.filename}:{warning.lineno}"
        for warning in caught
        if "synchronizing" in str(warning.message)
    ]
