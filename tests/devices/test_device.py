"""Which device is taken, what is said of one that cannot be used, and how its work is timed."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from impala_redis.common.devices import stages as stages_module
from impala_redis.common.devices.device import choose_device
from impala_redis.common.devices.pinned import Piece, layout_of, nbytes_of, pinned
from impala_redis.common.devices.stages import Stages
from impala_redis.common.errors import ConfigError, DeviceFull

CPU = torch.device("cpu")


def test_a_device_is_taken_as_named_or_the_best_there_is() -> None:
    assert choose_device("cpu") == CPU
    if torch.cuda.is_available():
        assert choose_device("cuda") == torch.device("cuda")
    else:
        with pytest.raises(ConfigError, match="finds no GPU"):
            choose_device("cuda")
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto") == torch.device(best)


def test_a_gpu_that_torch_cannot_use_is_refused_if_named_and_else_passed_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given one that is too old for this build
    def fails(*_: Any, **__: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: no kernel image is available\nmore words")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", fails)

    # then
    with pytest.raises(ConfigError, match=r"\(CUDA error: no kernel image is available\); use"):
        choose_device("cuda")
    assert choose_device("auto") == CPU
    assert "on the CPU, since torch cannot use the GPU: CUDA error: no kernel" in caplog.text


def test_a_gpu_that_is_full_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", fails)
    with pytest.raises(DeviceFull):
        choose_device("auto")


def test_without_pinned_memory_batches_lie_in_any_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    empty = torch.empty

    def fails(*size: int, pin_memory: bool = False, **kinds: Any) -> torch.Tensor:
        if pin_memory:
            raise torch.AcceleratorError("CUDA error: out of memory\nmore words")
        return empty(*size, **kinds)

    monkeypatch.setattr(torch, "empty", fails)

    # when
    memory, _ = (pinned(3, torch.uint8, torch.device("cuda")) for _ in range(2))

    # then
    assert (memory.shape, memory.dtype) == ((3,), torch.uint8)
    (message,) = caplog.messages
    assert message == (
        "no pinned memory, so copies to the GPU are waited for (CUDA error: out of memory)"
    )


def test_arrays_of_a_piece_of_memory_keep_dtype_and_shape_and_move_by_one_copy() -> None:
    # given arrays of many kinds, one of them empty
    arrays = {
        "frames": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
        "flags": np.array([[True], [False]]),
        "numbers": np.linspace(0.0, 1.0, 7, dtype=np.float32),
        "choices": np.arange(5, dtype=np.int64),
        "words": np.arange(3, dtype=np.uint16),
        "nothing": np.empty((1, 3, 0), np.float32),
    }
    layout = layout_of(arrays)
    one, other = (Piece(layout, torch.zeros(nbytes_of(layout), dtype=torch.uint8)) for _ in "ab")

    # when the arrays are written to one, and that is copied to the other
    for name, array in arrays.items():
        one.tensors[name].numpy()[:] = array
    other.memory.copy_(one.memory)

    # then both have them, and so has a copy in memory of its own
    copy = other.copy()
    other.memory.zero_()
    assert not other.tensors["numbers"].any()
    for name, array in arrays.items():
        for piece in (one, copy):
            found = piece.tensors[name].numpy()
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            np.testing.assert_array_equal(found, array)


def test_a_stage_lasts_from_the_end_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a clock
    moments = iter([10.0, 11.0, 13.0, 17.0])
    monkeypatch.setattr(stages_module, "time", SimpleNamespace(perf_counter=moments.__next__))

    # when
    stages = Stages(CPU)
    stages.begin()
    for stage in ("first_s", "second_s", "third_s"):
        stages.end(stage)

    # then
    assert stages.seconds() == {"first_s": 1.0, "second_s": 2.0, "third_s": 4.0}


def test_the_stages_of_a_gpu_are_timed_by_its_events_and_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given events that the device comes to at these milliseconds, once it is waited for
    waited_for = []
    made: list[Any] = []
    moments = iter([10.0, 11.0, 13.0, 17.0, 20.0, 25.0])

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing
            made.append(self)

        def record(self) -> None:
            self.at_ms = next(moments)

        def synchronize(self) -> None:
            waited_for.append(self)

        def elapsed_time(self, later: "Event") -> float:
            assert waited_for and waited_for[-1].at_ms >= later.at_ms
            return later.at_ms - self.at_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)

    # when
    stages = Stages(torch.device("cuda"))
    stages.begin()
    for stage in ("first_s", "second_s", "third_s"):
        stages.end(stage)
    assert not waited_for
    seconds = stages.seconds()

    # then
    assert seconds == pytest.approx({"first_s": 0.001, "second_s": 0.002, "third_s": 0.004})
    assert len(waited_for) == 1

    # when it is used again, then by the same events
    stages.begin()
    stages.end("only_s")
    assert stages.seconds() == pytest.approx({"only_s": 0.005})
    assert len(made) == 4
