"""What learners of a group tell each other, and that none waits for a dead one."""

import contextlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from trio import RANKS, Bomb

from chaos.servers import free_port
from impala_redis.common.errors import ConfigError, GroupLost
from impala_redis.common.grouping.group import Group, connect_store, device_for
from impala_redis.common.grouping.seat import Seat
from support import Programs

TRIO = Path(__file__).with_name("trio.py")
pytestmark = pytest.mark.processes


def test_three_learners_talk_until_one_dies(programs: Programs, tmp_path: Path) -> None:
    # when
    code, output = programs.run("python", str(TRIO), str(tmp_path), str(free_port()))

    # then messages of any length have reached all, also when somebody's outgrew the room
    assert code == 0, output
    saw: list[dict[str, Any]] = [
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(RANKS)
    ]
    for one in saw:
        assert one["exchanges"] == [True] * len(one["exchanges"])
        assert one["told"] and one["told nothing"]

    # and sums are right, and of the same bits for all
    assert all(one["right sum"] and one["same sum"] for one in saw)

    # and what would run where it is unpickled has arrived as bytes
    assert all(one["bombs"] for one in saw)
    assert not (tmp_path / "exploded").exists()
    pickle.loads(pickle.dumps(Bomb(tmp_path / "exploded")))  # noqa: S301  it is no dud
    assert (tmp_path / "exploded").exists()

    # and of those who have said at once that the run has ended, all have heard the same one
    assert all(one["ended alike"] for one in saw)

    # and the others have missed the one that died, soon, and at every call from then on
    for rank, one in enumerate(saw[:2]):
        for call in ("exchange", "tell", "add_up"):
            said = one[f"lost in {call}"]
            assert said.startswith(f"rank {rank} has lost the other learners of its group (")
            assert "torchrun begins all learners anew" in said
            assert "\n" not in said
        assert one["seconds"] < 10


def test_a_store_that_nobody_serves_is_named() -> None:
    # given
    port = free_port()
    seat = Seat(1, 2, 1, 0, "localhost", port, serves_store=True)

    # then
    with pytest.raises(GroupLost, match=f"does not reach .* is localhost:{port} "):
        connect_store(seat, timeout_s=0.2)


def test_a_store_that_rank_0_cannot_serve_is_named() -> None:
    # given a port that is taken
    seat = Seat(0, 2, 0, 0, "localhost", free_port(), serves_store=True)
    store = connect_store(seat, timeout_s=5)

    # then
    with pytest.raises(ConfigError, match=f"cannot serve .* at localhost:{seat.port} "):
        connect_store(seat, timeout_s=5)
    assert store.add("it is still served", 1) == 1


CPU = torch.device("cpu")


def alone(kind: type[Group] = Group) -> Group:
    """A group of one, which serves its store itself."""
    seat = Seat(0, 1, 0, 0, "localhost", free_port(), serves_store=True)
    return kind(seat, connect_store(seat, timeout_s=5), "test", CPU, timeout_s=5)


@pytest.mark.parametrize(
    ("version", "card", "place", "says"),
    [
        ("impala-redis 0.0", "", 1, "rank 1 of the group has impala-redis 0.0, and rank 0 has "),
        ("impala-redis 0.0", "", 0, ", and rank 0 has impala-redis 0.0; install the same"),
        (None, "GPU-1", 1, "rank 0 of the group computes on its CPU, while others have GPUs; "),
        (None, "GPU-1", 0, "rank 1 of the group computes on its CPU, while others have GPUs; "),
    ],
)
def test_learners_that_are_not_installed_alike_are_refused(
    version: str | None, card: str, place: int, says: str
) -> None:
    # given another learner, before or after this one
    class Beside(Group):
        def exchange(self, message: bytes) -> list[bytes]:
            heard = [*super().exchange(message)]
            heard.insert(place, json.dumps([version or json.loads(message)[0], card]).encode())
            return heard

    # when / then
    with pytest.raises(ConfigError) as refused:
        alone(Beside)
    assert says in str(refused.value)

    # and nothing of the group is left
    assert not torch.distributed.is_initialized()


def test_an_error_of_ones_own_gpu_is_not_the_loss_of_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # given
    group = alone()

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with monkeypatch.context() as patch, contextlib.closing(group):
        patch.setattr(torch.distributed, "all_reduce", fail)

        # when / then
        with pytest.raises(RuntimeError, match=r"^CUDA error") as failed:
            group.add_up(torch.zeros(1))
        assert not isinstance(failed.value, GroupLost)
        assert group.exchange(b"still met") == [b"still met"]


def test_a_learner_without_a_gpu_computes_on_its_cpu() -> None:
    seat = Seat(1, 2, 1, 0, "localhost", 1, serves_store=False)
    assert device_for(seat, "cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert device_for(seat, "auto") == torch.device("cpu")
        with pytest.raises(ConfigError, match="finds no GPU"):
            device_for(seat, "cuda")
