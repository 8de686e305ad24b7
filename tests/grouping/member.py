"""A learner of a group without the learning: meets the others and takes part in rounds.

Start it by torchrun: member.py FOLDER. After its first round it writes its process number into
FOLDER/ATTEMPT.RANK, and once FOLDER/end is there, the group ends.
"""

import os
import sys
import time
from pathlib import Path

import torch

from impala_redis.common.errors import GroupLost
from impala_redis.common.grouping.group import Group, connect_store
from impala_redis.common.grouping.rendezvous import Rendezvous
from impala_redis.common.grouping.seat import seat_in


def sleep(timeout_s: float) -> bool:
    """Nobody asks this program to stop."""
    time.sleep(timeout_s)
    return False


def main(folder: Path) -> None:
    """Meets the others and goes round with them until the end."""
    seat = seat_in(os.environ)
    assert seat is not None
    store = connect_store(seat, timeout_s=30)
    rendezvous = Rendezvous(store, seat, sleep)
    if seat.rank == 0:
        rendezvous.note("holder", rendezvous.noted("holder") or "the first")
        prefix, facts = rendezvous.call_in(b"facts"), b"facts"
    else:
        prefix, facts = rendezvous.come_in() or ("", b"")
    assert prefix and facts == b"facts" and rendezvous.noted("holder") == "the first"
    group = Group(seat, store, prefix, torch.device("cpu"), timeout_s=30)
    ending = False
    while not ending:
        said = group.exchange(b"end" if (folder / "end").exists() else b"")
        ending = b"end" in said
        vector = torch.full((1000,), float(seat.rank + 1))
        group.add_up(vector)
        assert vector.unique().tolist() == [sum(range(1, seat.ranks + 1))]
        mark = folder / f"{rendezvous.attempt}.{seat.rank}"
        if not mark.exists():
            new = folder / f"{mark.name}.new"
            new.write_text(f"{os.getpid()} {seat.restarts}")
            new.rename(mark)
        time.sleep(0.01)
    group.close()


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except GroupLost as lost:
        sys.stderr.write(f"{lost}\n")
        sys.exit(lost.exit_code)
