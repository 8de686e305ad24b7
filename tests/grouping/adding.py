"""Two learners of a group, each a process that trains on its half of every batch, on this machine.

Start it as adding.py FOLDER PORT. It forks the second, so that torch is imported once. Each writes
its parameters into FOLDER/RANK.npy.
"""

import os
import sys
from pathlib import Path

import numpy as np
import torch
from companions import cut, run_of, some_batch

from impala_redis.common.grouping.group import Group, connect_store
from impala_redis.common.grouping.group_engine import make_group_engine
from impala_redis.common.grouping.group_learner import GroupLearner
from impala_redis.common.grouping.seat import Seat

UPDATES, COLUMNS = 50, 6


def learn(rank: int, port: int, folder: Path) -> None:
    """Meets the other one by the store that rank 0 serves, and learns with it."""
    seat = Seat(rank, 2, rank, 0, "localhost", port, serves_store=True)
    device = torch.device("cpu")
    group = Group(seat, connect_store(seat, timeout_s=30), "test", device, timeout_s=30)
    spec, config = run_of(reduction="mean", optimizer="adam")
    learner = GroupLearner(config, make_group_engine(device, 1, spec, config, group), group)
    for seed in range(UPDATES):
        halves = cut(some_batch(spec, seed, COLUMNS), 2)
        learner.update(halves[rank], [learner.share_of(half) for half in halves])
    own = str(learner.crc()).encode()
    assert group.exchange(own) == [own, own]
    np.save(folder / f"{rank}.npy", learner.engine.flat())
    group.close()


def main(folder: Path, port: int) -> None:
    """Both; fails if one does."""
    child = os.fork()
    learn(1 if child == 0 else 0, port, folder)
    if child:
        assert os.waitpid(child, 0)[1] == 0


if __name__ == "__main__":
    torch.set_num_threads(1)  # others would not survive the fork
    main(Path(sys.argv[1]), int(sys.argv[2]))
