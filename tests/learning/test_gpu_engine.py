"""The engine of a GPU, on a CPU where there is none: against that of a CPU, and its graph."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from recorded import recorded
from updates import KINDS, B, Kind, figures_after, make_config, make_data, spec_of, spec_of_kind

from impala_redis.common.devices.device import choose_device
from impala_redis.common.devices.graph import Capture, capture_for, captured
from impala_redis.common.feeding.batch import Batch
from impala_redis.common.learning import gpu_engine
from impala_redis.common.learning.gpu_engine import UPDATES_BEFORE_GRAPH, GpuEngine
from impala_redis.common.learning.learner import Learner
from impala_redis.common.learning.torch_engine import TorchEngine
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec
from small_networks import some_actions, some_observations

CPU = torch.device("cpu")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DEVICES = ["cpu", pytest.param("cuda", marks=needs_gpu)]


def capture_on(device: torch.device) -> Capture:
    """The device's own way to record, or its likeness on a CPU."""
    return capture_for(device) or recorded


def batches_of(spec: RunSpec, kind: Kind, count: int, bad: int | None = None) -> Iterator[Batch]:
    """Random batches; the one numbered `bad` allows no finite step."""
    for seed in range(count):
        batch = make_data(spec, seed)
        rows = batch.rows
        shape = rows.observations.shape[:2]
        rows.observations[:] = some_observations(spec.observation, *shape, seed=seed)
        rows.actions[:] = some_actions(spec.action, *rows.actions.shape[:2], seed=seed)
        rows.is_first[2, 1] = True
        if seed == bad:
            rows.rewards[:] = np.nan
        yield batch


def placed(learner: Learner, batch: Batch) -> Batch:
    """The batch as the feeder makes it: where the engine reads it, and on its way to there."""
    same = make_data(learner.engine.spec, 0)
    same.__dict__.update(batch.__dict__)
    same.rows = learner.engine.empty_rows(B)
    for mine, theirs in zip(same.rows, batch.rows, strict=True):
        mine[:] = theirs
    same.staged = learner.engine.stage(same.rows)
    return same


def learners_of(
    kind: Kind, device: torch.device, captures: list[Capture | None], **changes: Any
) -> tuple[RunSpec, list[Learner]]:
    """Learners of one run whose engines record by each of these."""
    config = make_config(hidden_sizes=[32], learning_rate=1e-3, **kind.changes, **changes)
    spec = spec_of_kind(kind, config)
    engines = [GpuEngine(spec, config, device, capture) for capture in captures]
    return spec, [Learner(config, engine) for engine in engines]


def assert_same_figures(found: dict[str, float], expected: dict[str, float], kind: Kind) -> None:
    timeless = [figure for figure in expected if not figure.endswith("_s")]
    np.testing.assert_allclose(
        [found[figure] for figure in timeless],
        [expected[figure] for figure in timeless],
        rtol=kind.rounding,
        atol=kind.rounding / 10,
    )


@pytest.mark.parametrize("way", ["one by one", "as a graph"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", KINDS)
def test_it_learns_what_the_engine_of_a_cpu_learns(name: str, device: str, way: str) -> None:
    # given
    kind, where = KINDS[name], choose_device(device)
    capture = capture_on(where) if way == "as a graph" else None
    spec, (learner,) = learners_of(kind, where, [capture])
    config = make_config(hidden_sizes=[32], learning_rate=1e-3, **kind.changes)
    on_cpu = Learner(config, TorchEngine(spec, config))
    before = on_cpu.weights()

    # when: the last batch but one is refused
    for number, batch in enumerate(batches_of(spec, kind, 6, bad=4)):
        mean = learner.engine.averaged()
        found = figures_after(learner, placed(learner, batch))
        expected = figures_after(on_cpu, batch)

        # then
        assert_same_figures(found, expected, kind)
        moved = (learner.engine.averaged() != mean).any()
        assert moved == np.isfinite(expected["grad_norm"])
        graph = capture is not None and number >= UPDATES_BEFORE_GRAPH
        assert ("graph_s" in found, "forward_s" in found) == (graph, not graph)
        stages = [name for name in found if name.endswith("_s") and name != "transfer_s"]
        assert all(found[stage] > 0 for stage in stages)
    assert learner.skipped == on_cpu.skipped == 1
    assert learner.engine.steps == on_cpu.engine.steps == 5
    after, other = on_cpu.weights(), learner.weights()
    step, other_step = (
        np.concatenate([(weights[part] - before[part]).ravel() for part in before])
        for weights in (after, other)
    )
    cosine = step @ other_step / np.linalg.norm(step) / np.linalg.norm(other_step)
    assert cosine > 1.0 - kind.rounding
    np.testing.assert_allclose(
        learner.engine.averaged(), on_cpu.engine.averaged(), atol=10 * kind.rounding
    )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", KINDS)
def test_a_graph_computes_what_its_operations_compute_one_by_one(name: str, device: str) -> None:
    # given schedules, so that both rates change from update to update
    kind, where = KINDS[name], choose_device(device)
    schedules = {"learning_rate_schedule": "linear", "entropy_schedule": "linear"}
    captures = [None, capture_on(where)]
    spec, (one_by_one, graph) = learners_of(
        kind, where, captures, total_frames=120, entropy_cost=0.1, **schedules
    )

    # when
    for batch in batches_of(spec, kind, 8, bad=5):
        expected = figures_after(one_by_one, placed(one_by_one, batch))
        found = figures_after(graph, placed(graph, batch))

        # then, on a CPU to the last bit
        rounding = 0.0 if device == "cpu" else kind.rounding
        assert_same_figures(found, expected, kind._replace(rounding=rounding))
    assert "graph_s" in found and "graph_s" not in expected
    for name_, tensor in one_by_one.state()[0].items():
        np.testing.assert_allclose(
            graph.state()[0][name_], tensor, atol=rounding, rtol=0, err_msg=name_
        )


@pytest.mark.parametrize("device", DEVICES)
def test_an_update_has_ended_when_the_next_one_was_begun_and_both_count_at_once(
    device: str,
) -> None:
    # given
    spec, (learner,) = learners_of(KINDS["a memory"], choose_device(device), [None])
    first, second = (placed(learner, make_data(spec, seed)) for seed in range(2))

    # when
    begun = learner.update(first)

    # then
    assert begun == []
    assert (learner.version, learner.updates, learner.frames) == (1, 1, first.frames)
    assert learner.window.episodes == 0

    # when
    (ended,) = learner.update(second)

    # then
    assert (ended.batch, ended.version) == (first, 1)
    assert np.isfinite(ended.figures["total_loss"])
    assert learner.window.episodes == len(first.episodes)
    (last,) = learner.settle()
    assert (last.batch, last.version) == (second, 2)
    assert learner.settle() == []


def test_no_state_is_told_while_an_update_is_under_way() -> None:
    spec, (learner,) = learners_of(KINDS["a memory"], CPU, [None])
    learner.update(make_data(spec, 0))
    with pytest.raises(AssertionError, match="under way"):
        learner.state()


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_found_unfit_late_is_trained_on_without_its_bad_columns(device: str) -> None:
    # given batches, of which one has a column that allows no finite step
    where = choose_device(device)
    spec, (learner,) = learners_of(KINDS["a memory"], where, [capture_on(where)])
    batches = [placed(learner, make_data(spec, seed)) for seed in range(6)]
    bad = placed(learner, with_one_bad_column(make_data(spec, 9)))
    frames = bad.frames

    # when it is trained on between others, as a graph
    for batch in batches[:5]:
        learner.update(batch)
    learner.update(bad)
    *_, ended = learner.update(batches[5])

    # then
    assert ended.batch is bad
    assert [part.columns for part in bad.unfit] == [slice(1, 2)]
    assert np.isfinite(ended.figures["grad_norm"])
    learner.settle()
    trained = sum(batch.frames for batch in batches) + bad.frames
    assert bad.frames < frames and learner.frames == trained
    assert (learner.skipped, learner.engine.steps, learner.updates) == (0, 7, 7)


def with_one_bad_column(batch: Batch) -> Batch:
    batch.parts = [
        batch.parts[0]._replace(actor=(f"a{number}", 1), columns=slice(number, number + 1))
        for number in range(B)
    ]
    batch.rows.rewards[:, 1] = np.nan
    batch.rows.mask[:, 1] = True
    return batch


@pytest.mark.parametrize("device", DEVICES)
def test_weights_that_were_asked_for_are_those_of_then_whatever_comes_after(device: str) -> None:
    # given
    where = choose_device(device)
    spec, (learner,) = learners_of(KINDS["stacks of frames"], where, [capture_on(where)])
    figures_after(learner, placed(learner, make_data(spec, 0)))
    wanted = learner.weights()

    # when they are asked for, and looked at two updates later
    arriving = learner.versioned_weights()
    for seed in range(1, 3):
        figures_after(learner, placed(learner, make_data(spec, seed)))

    # then
    assert arriving.version == 1
    assert list(arriving.weights) == list(wanted)
    for name, array in wanted.items():
        np.testing.assert_array_equal(arriving.weights[name], array)
        assert (learner.weights()[name] != array).any(), name


@pytest.mark.parametrize("device", DEVICES)
def test_the_state_is_that_of_the_engine_of_a_cpu_tensor_for_tensor(device: str) -> None:
    # given a run of convolutions on each
    kind, where = KINDS["stacks of frames"], choose_device(device)
    spec, (learner,) = learners_of(kind, where, [None])
    config = make_config(hidden_sizes=[32], learning_rate=1e-3, **kind.changes)
    on_cpu = Learner(config, TorchEngine(spec, config))
    for batch in batches_of(spec, kind, 2):
        figures_after(learner, placed(learner, batch))
        figures_after(on_cpu, batch)

    # when one takes over the other's state
    tensors, facts = on_cpu.state()
    parts: dict[str, dict[str, Any]] = {"model": {}, "averaged": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        kind_of, _, rest = name.partition(".")
        parts.setdefault(kind_of, {})[rest] = tensor
    state = [parts[which] for which in ("model", "averaged", "optimizer")]
    learner.engine.load(*state, facts["optimizer_steps"])

    # then
    learner.version, learner.updates = on_cpu.version, on_cpu.updates
    again, again_facts = learner.state()
    assert again_facts == facts
    assert list(again) == list(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(again[name], tensor, err_msg=name)


def test_what_cannot_be_recorded_is_computed_one_by_one_and_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given
    def fails(_: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")

    kind = KINDS["a perceptron by Adam"]
    spec, (learner, expected) = learners_of(kind, CPU, [fails, None])

    # when
    for batch in batches_of(spec, kind, 6):
        found = figures_after(learner, placed(learner, batch))
        wanted = figures_after(expected, placed(expected, batch))

    # then
    assert_same_figures(found, wanted, kind._replace(rounding=0.0))
    (message,) = caplog.messages
    assert message.startswith("updates are computed one operation after the other")
    assert message.endswith("(CUDA error: operation not permitted when stream is capturing)")


@needs_gpu
def test_a_recording_that_is_broken_off_tells_why_and_leaves_all_as_it_was(
    caplog: pytest.LogCaptureFixture,
) -> None:
    # given a computation that asks for a number in the middle
    def broken_off(computation: Callable[[], None]) -> Callable[[], None]:
        def asking() -> None:
            computation()
            torch.ones(1, device="cuda").item()

        return captured(asking)

    kind, where = KINDS["a perceptron by Adam"], choose_device("cuda")
    spec, (learner, expected) = learners_of(kind, where, [broken_off, None])
    stream = torch.cuda.current_stream()

    # when
    for batch in batches_of(spec, kind, 6):
        found = figures_after(learner, placed(learner, batch))
        wanted = figures_after(expected, placed(expected, batch))

    # then
    assert torch.cuda.current_stream() == stream
    assert_same_figures(found, wanted, kind)
    (message,) = caplog.messages
    assert "captur" in message and "previous error" not in message


@pytest.mark.parametrize("name", [name for name in KINDS if "bfloat16" not in name])
def test_an_update_mixes_nothing_of_the_hosts_with_what_is_on_the_device(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # given a device whose tensors hold no numbers: whoever asks for one, or mixes them with the
    # host's, raises
    kind, nowhere = KINDS[name], torch.device("meta")
    spec, (learner,) = learners_of(kind, nowhere, [None])
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device_type: False)  # not known there
    fetched: list[torch.Tensor] = []
    monkeypatch.setattr(gpu_engine.Pending, "fetch", lambda _, figures: fetched.append(figures))
    monkeypatch.setattr(gpu_engine.Pending, "figures", lambda _: [1.0] * len(fetched[0]))

    # when
    figures_after(learner, make_data(spec, seed=0))

    # then it has come to its figures, which are there
    assert [figures.device for figures in fetched] == [nowhere]


@needs_gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
def test_an_update_asks_a_gpu_for_nothing_but_its_figures() -> None:
    # given a learner that has its graph
    kind = KINDS["stacks of frames and a memory, in bfloat16"]
    where = choose_device("cuda")
    spec, (learner,) = learners_of(kind, where, [capture_for(where)])
    batches = [placed(learner, batch) for batch in batches_of(spec, kind, 8)]
    for batch in batches[:6]:
        learner.update(batch)

    # when / then: torch raises where the host would wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        for batch in batches[6:]:
            learner.update(batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("device", DEVICES)
def test_three_batches_in_turns_filled_by_another_thread_teach_what_fresh_ones_do(
    device: str,
) -> None:
    # given the feeder's way with batches
    config: Config = make_config(learning_rate=1e-3)
    spec, where = spec_of(config), choose_device(device)
    learner = Learner(config, GpuEngine(spec, config, where, capture_on(where)))
    expected = Learner(config, TorchEngine(spec, config))
    free: queue.Queue[Batch] = queue.Queue()
    ready: queue.Queue[Batch] = queue.Queue()
    for _ in range(3):
        free.put(Batch(learner.engine.empty_rows(B)))

    def fill() -> None:
        for seed in range(20):
            batch = free.get(timeout=10.0)
            data = make_data(spec, seed)
            batch.take(data.rows, 0, version=0)
            batch.frames = data.frames
            batch.staged = learner.engine.stage(batch.rows)
            ready.put(batch)

    filling = threading.Thread(target=fill, daemon=True)
    filling.start()

    # when
    found = []
    for _ in range(20):
        for update in learner.update(ready.get(timeout=10.0)):
            found.append(update.figures["total_loss"])
            update.batch.clear()
            free.put(update.batch)
    found += [update.figures["total_loss"] for update in learner.settle()]
    filling.join(timeout=10.0)

    # then
    wanted = [figures_after(expected, make_data(spec, seed))["total_loss"] for seed in range(20)]
    np.testing.assert_allclose(found, wanted, rtol=1e-3)
