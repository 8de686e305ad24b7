"""Which device is taken, what is said of one that cannot be used, and how its work is timed."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from impala_redis.common.devices import stages as stages_module
from impala_redis.common.devices.device import choose_device
from impala_redis.common.devices.pinned import pinned_if_possible
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


def test_without_pinned_memory_batches_are_made_of_any_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # given
    def fails(_: Any) -> Any:
        raise torch.AcceleratorError("CUDA error: out of memory\nmore words")

    monkeypatch.setattr(torch.Tensor, "pin_memory", fails)
    tensors = {"actions": torch.ones(2), "rewards": torch.zeros(2)}

    # when / then
    assert pinned_if_possible(tensors) is tensors
    (message,) = caplog.messages
    assert message == "no pinned memory, so updates wait for copies (CUDA error: out of memory)"


def test_a_stage_lasts_from_the_end_of_the_one_before(monkeypatch: pytest.MonkeyPatch) -> None:
    # given a clock
    moments = iter([10.0, 11.0, 13.0, 17.0])
    monkeypatch.setattr(stages_module, "time", SimpleNamespace(perf_counter=moments.__next__))

    # when
    stages = Stages(CPU)
    for stage in ("first_s", "second_s", "third_s"):
        stages.end(stage)

    # then
    assert stages.seconds() == {"first_s": 1.0, "second_s": 2.0, "third_s": 4.0}


def test_the_stages_of_a_gpu_are_timed_by_its_events_and_waited_for_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given events that the device comes to at these milliseconds, once it is waited for
    waited_for = []
    moments = iter([10.0, 11.0, 13.0, 17.0])

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.at_ms = next(moments)

        def synchronize(self) -> None:
            waited_for.append(self)

        def elapsed_time(self, later: "Event") -> float:
            assert waited_for and waited_for[0].at_ms >= later.at_ms
            return later.at_ms - self.at_ms

    monkeypatch.setattr(torch.cuda, "Event", Event)

    # when
    stages = Stages(torch.device("cuda"))
    for stage in ("first_s", "second_s", "third_s"):
        stages.end(stage)
    assert not waited_for
    seconds = stages.seconds()

    # then
    assert seconds == pytest.approx({"first_s": 0.001, "second_s": 0.002, "third_s": 0.004})
    assert len(waited_for) == 1
