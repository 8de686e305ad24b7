"""Three learners of a group without the learning, on this machine, with no torchrun.

Start it as trio.py FOLDER PORT. It forks the learners, so that torch is imported once. Each writes
what it has seen into FOLDER/RANK.json; rank 2 kills itself in the end.
"""

import json
import os
import pickle
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

from impala_redis.common.errors import GroupLost
from impala_redis.common.grouping.group import Group, connect_store
from impala_redis.common.grouping.rendezvous import Rendezvous
from impala_redis.common.grouping.seat import seat_in

RANKS = 3
# The lengths of each rank's messages, exchange by exchange.
LENGTHS = [(0, 0, 0), (0, 1, 1024), (7, 1025, 3), (1_000_000, 0, 5), (1, 2, 3), (70_000, 70_001, 0)]
TOLD = bytes(range(256)) * 40_000  # 10 MB


class Bomb:
    """What leaves a file behind where it is unpickled."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._file,)


def message(rank: int, length: int) -> bytes:
    """Bytes that name their rank."""
    return bytes([rank + 1]) * length


def meet(rank: int, port: int) -> tuple[Group, Rendezvous]:
    """Meets the others, by the store that rank 0 serves."""
    seat = seat_in(
        {
            **{"RANK": str(rank), "WORLD_SIZE": str(RANKS), "LOCAL_RANK": str(rank)},
            **{"MASTER_ADDR": "localhost", "MASTER_PORT": str(port)},
        }
    )
    assert seat is not None
    store = connect_store(seat, timeout_s=60)
    rendezvous = Rendezvous(store, seat, lambda timeout_s: bool(time.sleep(timeout_s)))
    if rank == 0:
        prefix = rendezvous.call_in(b"")
    else:
        prefix, _ = rendezvous.come_in() or (None, b"")
    assert prefix is not None
    return Group(seat, store, prefix, torch.device("cpu"), timeout_s=60), rendezvous


def live(rank: int, folder: Path, port: int) -> dict[str, Any]:
    """What a learner sees, up to the death of rank 2."""
    group, rendezvous = meet(rank, port)
    saw: dict[str, Any] = {}
    saw["exchanges"] = [
        group.exchange(message(rank, lengths[rank])) == [*map(message, range(RANKS), lengths)]
        for lengths in LENGTHS
    ]
    bomb = pickle.dumps(Bomb(folder / "exploded"))
    saw["bombs"] = group.exchange(bomb) == [bomb] * RANKS
    saw["told"] = group.tell(TOLD if rank == 0 else None) == TOLD
    saw["told nothing"] = group.tell(b"" if rank == 0 else None) == b""
    vector = torch.randn(100_003, generator=torch.Generator().manual_seed(rank))
    group.add_up(vector)
    saw["same sum"] = len(set(group.exchange(vector.numpy().tobytes()))) == 1
    parts = [torch.randn(100_003, generator=torch.Generator().manual_seed(r)) for r in range(RANKS)]
    saw["right sum"] = torch.allclose(vector, torch.stack(parts).sum(0), atol=1e-5)
    rendezvous.end(rank, f"rank {rank} was the first")
    saw["ends"] = len({json.dumps(rendezvous.ended).encode()} | set(group.exchange(b"")) - {b""})
    saw["ended alike"] = len(set(group.exchange(json.dumps(rendezvous.ended).encode()))) == 1
    if rank == 2:
        (folder / "2.json").write_text(json.dumps(saw))
        os.kill(os.getpid(), signal.SIGKILL)
    began_s = time.monotonic()
    for name, call in (
        ("exchange", lambda: group.exchange(b"")),
        ("tell", lambda: group.tell(b"" if rank == 0 else None)),
        ("add_up", lambda: group.add_up(torch.zeros(1))),
    ):
        try:
            call()
            saw[f"lost in {name}"] = "nothing"
        except GroupLost as lost:
            saw[f"lost in {name}"] = str(lost)
    group.close()
    saw["seconds"] = time.monotonic() - began_s
    return saw


def main(folder: Path, port: int) -> None:
    """Forks the learners, and waits for them."""
    children = []
    for rank in range(RANKS):
        if not (child := os.fork()):
            code = 1
            try:
                saw = live(rank, folder, port)
                (folder / f"{rank}.json").write_text(json.dumps(saw))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
