"""PopArt's statistics: they find the scale of each task, and no value moves when they do."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from impala_redis.common.loss.popart import Head, PopArt

T, B, F = 20, 32, 16
CPU = torch.device("cpu")

pytestmark = pytest.mark.usefixtures("one_thread")


def make_popart(ranges: Sequence[float], beta: float = 3e-4, least: float = 0.01) -> PopArt:
    return PopArt(ranges, beta, least, CPU)


def some_head(num_tasks: int) -> Head:
    return Head(torch.randn(num_tasks, F) / F, torch.randn(num_tasks))


def values_of(popart: PopArt, head: Head, features: Tensor, tasks: Tensor) -> Tensor:
    """What the network says of rows [N, F] of tasks [N]."""
    outputs = torch.nn.functional.linear(features, *head).gather(1, tasks[:, None])
    return popart.values(outputs.T, tasks)[0]


def sums_of(popart: PopArt, targets: Tensor, tasks: Tensor | None = None) -> Tensor:
    """Sums of targets [T, B], which all count; of the first task if no other is given."""
    tasks = torch.zeros(targets.shape[1], dtype=torch.int64) if tasks is None else tasks
    return popart.sums(targets, torch.ones_like(targets, dtype=torch.bool), tasks)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def test_statistics_of_any_scale_are_found_and_no_value_moves_on_the_way() -> None:
    # given five tasks, whose targets are of scales from 1e-3 to 1e4, and of one there are none
    scales, centers = torch.tensor([1e-3, 1.0, 1e2, 1e4, 1.0]), torch.tensor([0, 5, -300, 1e4, 0])
    popart, head, mean_head = make_popart([0.1, 1, 1, 1, 1]), some_head(5), some_head(5)
    absent = [tensor[4].clone() for tensor in (*head, *popart.tensors().values())]
    features, seen_by = torch.randn(64, F), torch.randint(0, 5, (64,))
    worst = 0.0
    for _ in range(500):
        # when
        tasks = torch.randint(0, 4, (B,))
        targets = torch.randn(T, B) * scales[tasks] + centers[tasks]
        before = [values_of(popart, one, features, seen_by) for one in (head, mean_head)]
        popart.update(popart.sums(targets, torch.rand(T, B) > 0.1, tasks), [head, mean_head])
        after = [values_of(popart, one, features, seen_by) for one in (head, mean_head)]
        for was, now in zip(before, after, strict=True):
            moved = (now - was).abs().double() / (popart.std[seen_by] + was.abs())
            worst = max(worst, moved.max().item())

    # then
    assert worst < 1e-5
    np.testing.assert_allclose(popart.std[:4], scales[:4], rtol=0.02)
    assert ((popart.mean - centers).abs() < 0.1 * scales)[:4].all()
    now_absent = [tensor[4] for tensor in (*head, *popart.tensors().values())]
    assert all(map(torch.equal, now_absent, absent))


def test_statistics_have_the_right_size_after_one_update_and_forget_slowly_later() -> None:
    # given
    popart, head = make_popart([1.0], beta=0.1), some_head(1)

    # when the first targets come, and then others of another size
    popart.update(sums_of(popart, 50 + 100 * torch.randn(T, B)), [head])

    # then
    assert popart.std.item() == pytest.approx(100, rel=0.1)
    for _ in range(20):
        popart.update(sums_of(popart, torch.randn(T, B)), [head])
    assert (popart.mean**2).item() < popart.std.item() ** 2 < 100**2 * 0.9**11

    # when all that was seen would count alike, or the least step alone counted
    steady, slow = make_popart([1.0], beta=0.0), make_popart([1.0], beta=3e-4)
    slow.seen += 1e9
    whole = torch.randn(30, T, B) * 100
    for targets in whole:
        steady.update(sums_of(steady, targets), [])
        slow.update(sums_of(slow, targets), [])

    # then
    assert steady.std.item() == pytest.approx(whole.std(correction=0).item(), rel=1e-6)
    assert slow.std.item() < 20


def test_the_sums_of_parts_of_a_batch_add_up_to_those_of_the_whole_even_in_float32() -> None:
    # given targets that differ by a ten-thousandth of their size
    targets, rows = 1e4 + torch.randn(T, B), torch.rand(T, B) > 0.2
    tasks = torch.randint(0, 3, (B,))
    whole, parts = make_popart([1.0, 1.0, 1.0]), make_popart([1.0, 1.0, 1.0])
    whole.update(sums_of(whole, 1e4 + torch.randn(T, 3), torch.arange(3)), [])
    parts.load(whole.tensors())

    # when one has the whole batch, and the other sums of halves
    whole.update(whole.sums(targets, rows, tasks), [])
    halves = [
        parts.sums(targets[:, half], rows[:, half], tasks[half]).float()
        for half in (slice(0, 16), slice(16, B))
    ]
    parts.update(halves[0] + halves[1], [])

    # then
    for name, tensor in whole.tensors().items():
        np.testing.assert_allclose(parts.tensors()[name], tensor, rtol=1e-6, err_msg=name)


def test_a_reward_after_a_long_time_without_any_is_no_larger_than_the_bound_allows() -> None:
    # given a task in which nothing was paid for 500 updates
    popart = make_popart([1.0], least=0.01)
    for _ in range(500):
        popart.update(sums_of(popart, torch.randn(T, B) * 1e-5), [])

    # when
    paid = 1.0 / popart.scales(torch.zeros(1, dtype=torch.int64)).item()

    # then
    assert paid == pytest.approx(100)
    # and what is absurd has a bound, too
    for _ in range(2):
        popart.update(sums_of(popart, torch.full((T, B), 3e38)), [])
    assert popart.std.item() <= 1e6
    assert all(tensor.isfinite().all() for tensor in popart.tensors().values())


def test_an_update_that_was_not_taken_or_of_another_task_changes_nothing() -> None:
    # given
    popart, head = make_popart([1.0, 10.0]), some_head(2)
    first = torch.zeros(B, dtype=torch.int64)
    popart.update(sums_of(popart, torch.randn(T, B), first), [head])

    def held() -> list[Tensor]:
        return [tensor.clone() for tensor in (*head, *popart.tensors().values())]

    # when a step is refused, whose targets are no numbers
    before, bad = held(), torch.randn(T, B)
    bad[3, 5] = torch.nan
    popart.update(sums_of(popart, bad, first), [head], taken=torch.tensor(False))

    # then
    assert all(map(torch.equal, held(), before))

    # when what is no number is of another task, or in a row that does not count
    mixed, rows = torch.randn(T, B), torch.ones(T, B, dtype=torch.bool)
    mixed[:, 0], mixed[0, 1], rows[0, 1] = torch.nan, torch.inf, False
    tasks = torch.ones(B, dtype=torch.int64)
    tasks[0] = 0
    sums = popart.sums(mixed, rows, tasks)

    # then
    assert sums[:, 1].isfinite().all()
    assert sums[0].tolist() == [T, (B - 1) * T - 1]
