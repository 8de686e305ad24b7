"""What learners of a group tell each other, and that none waits for a dead one."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from trio import RANKS, Bomb

from chaos.servers import free_port
from impala_redis.common.errors import ConfigError, GroupLost
from impala_redis.common.grouping.group import connect_store, device_for
from impala_redis.common.grouping.seat import Seat
from support import Programs

TRIO = Path(__file__).with_name("trio.py")
pytestmark = pytest.mark.processes


def test_three_learners_talk_until_one_dies(programs: Programs, tmp_path: Path) -> None:
    # when
    code, output = programs.run("python", str(TRIO), str(tmp_path), str(free_port()), timeout_s=100)

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


def test_a_learner_without_a_gpu_computes_on_its_cpu() -> None:
    seat = Seat(1, 2, 1, 0, "localhost", 1, serves_store=False)
    assert device_for(seat, "cpu") == torch.device("cpu")
    if not torch.cuda.is_available():
        assert device_for(seat, "auto") == torch.device("cpu")
        with pytest.raises(ConfigError, match="finds no GPU"):
            device_for(seat, "cuda")
