"""The clock of a device: how long the stages of a computation took."""

import itertools
import time
from typing import Any

import torch


class Stages:
    """How long the stages of a computation took, one after the other, each time anew.

    A GPU's stages are measured on the GPU, in its order of work: nothing waits for the measuring.
    """

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._names: list[str] = []
        self._moments: list[Any] = []
        self._events: list[Any] = []  # of a GPU, made once

    def begin(self) -> None:
        """Begins the first stage."""
        self._names, self._moments = [], []
        self._note_moment()

    def end(self, stage: str) -> None:
        """Ends a stage, and begins the next."""
        self._names.append(stage)
        self._note_moment()

    def seconds(self) -> dict[str, float]:
        """Seconds by stage; waits until a GPU has ended the last one."""
        if self._on_gpu:
            self._moments[-1].synchronize()
            took = [a.elapsed_time(b) / 1e3 for a, b in itertools.pairwise(self._moments)]
        else:
            took = [b - a for a, b in itertools.pairwise(self._moments)]
        return dict(zip(self._names, took, strict=True))

    def _note_moment(self) -> None:
        """Notes the present moment: of the clock, or an event in the GPU's order of work."""
        if not self._on_gpu:
            self._moments.append(time.perf_counter())
            return
        if len(self._moments) == len(self._events):
            self._events.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        event = self._events[len(self._moments)]
        event.record()
        self._moments.append(event)
