"""What the learners of a group tell each other, by torch.distributed: bytes, and sums of tensors.

Nothing here unpickles: of torch.distributed only calls that move tensors are used.
"""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from impala_redis import __version__
from impala_redis.common.devices.device import choose_device, enough_memory
from impala_redis.common.errors import ConfigError, GroupLost, printable
from impala_redis.common.grouping.seat import Seat

# A message's length comes first, as int64.
HEAD_NBYTES = 8
# Every message of an exchange takes this room at least. A longer one makes all of them exchange
# once more, and from then on take more room from the start, up to the most that is kept.
LEAST_ROOM_NBYTES, MOST_ROOM_KEPT_NBYTES = 1024, 64 * 1024
# No message is longer; a length beyond it is none.
MOST_NBYTES = 2**31


class SharedStore:
    """The store of a group, whose every call raises GroupLost if whoever serves it is gone."""

    def __init__(self, raw: Any, rank: int) -> None:
        """Wraps torch's own, `raw`, for the learner of that rank."""
        self.raw = raw
        self._rank = rank

    def set(self, key: str, value: bytes, /) -> None:
        """Writes a value."""
        with self._in_touch():
            self.raw.set(key, value)

    def get(self, key: str, /) -> bytes:
        """The value of a key that is there; waits for one that is not, as long as connecting."""
        with self._in_touch():
            value: bytes = self.raw.get(key)
        return value

    def check(self, keys: list[str], /) -> bool:
        """Whether all of these keys are there."""
        with self._in_touch():
            there: bool = self.raw.check(keys)
        return there

    def add(self, key: str, amount: int, /) -> int:
        """Adds to a number, which begins at 0; the sum."""
        with self._in_touch():
            total: int = self.raw.add(key, amount)
        return total

    def compare_set(self, key: str, expected: bytes, desired: bytes, /) -> bytes:
        """Writes `desired` if the key holds `expected`, or is missing and that is empty.

        Returns what the key holds then.
        """
        with self._in_touch():
            now: bytes = self.raw.compare_set(key, expected, desired)
        return now

    @contextmanager
    def _in_touch(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise _lost(self._rank, "the store of its group", error) from error


def connect_store(seat: Seat, timeout_s: float) -> SharedStore:
    """The store that torchrun serves, or which rank 0 serves where no torchrun does.

    Others than rank 0 wait up to `timeout_s` seconds until they reach it.

    Raises GroupLost, if it cannot be reached, and ConfigError, if rank 0 cannot serve it.
    """
    serves = seat.serves_store and seat.rank == 0
    place = f"{printable(seat.address)}:{seat.port}"
    try:
        store = dist.TCPStore(  # type: ignore[attr-defined]
            seat.address,
            seat.port,
            is_master=serves,
            timeout=timedelta(seconds=timeout_s),
            wait_for_workers=False,
        )
    except RuntimeError as error:
        if serves:
            raise ConfigError(
                f"rank 0 cannot serve the group's store at {place} ({_why(error)}); set "
                "MASTER_ADDR to its own address and MASTER_PORT to a free port, or start the group "
                "by torchrun"
            ) from error
        raise GroupLost(
            f"rank {seat.rank} does not reach the group's store at MASTER_ADDR:MASTER_PORT, which "
            f"is {place} ({_why(error)})"
        ) from error
    return SharedStore(store, seat.rank)


def device_for(seat: Seat, wanted: str) -> torch.device:
    """ "auto", "cpu" or "cuda" as this learner's device: a card of its own where there are enough.

    The card becomes the one that "cuda" means in this process.

    Raises ConfigError and DeviceFull, as `choose_device`.
    """
    if wanted == "cpu" or not torch.cuda.is_available():
        return choose_device(wanted)
    card = seat.local_rank % torch.cuda.device_count()
    torch.cuda.set_device(card)
    device = choose_device(wanted)
    return torch.device("cuda", card) if device.type == "cuda" else device


class Group:
    """The learners of a group that have met. All of them make the same calls in the same order.

    Every call but `close` raises GroupLost if another learner is gone, or does not take part within
    the time-out. One thread at a time may call.
    """

    def __init__(
        self,
        seat: Seat,
        store: SharedStore,
        prefix: str,
        device: torch.device,
        timeout_s: float = 600.0,
    ) -> None:
        """Connects those who have met under this prefix; `device` is where this one learns.

        Raises ConfigError, if the learners are not of one version, or not all on the same kind of
        device, and GroupLost.
        """
        self.rank, self.ranks = seat.rank, seat.ranks
        self._room_nbytes = LEAST_ROOM_NBYTES
        self._lost: GroupLost | None = None  # how the others were lost: it stays so
        self._adding: dist.ProcessGroup | None = None  # the one that all else uses
        timeout = timedelta(seconds=timeout_s)
        try:
            dist.init_process_group(
                "gloo",
                store=dist.PrefixStore(prefix, store.raw),  # type: ignore[attr-defined]
                rank=seat.rank,
                world_size=seat.ranks,
                timeout=timeout,
            )
        except RuntimeError as error:
            raise GroupLost(
                f"rank {seat.rank} does not reach the other learners of its group ({_why(error)}); "
                "where machines have several networks, name the one that all share, as in "
                "GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0"
            ) from error
        try:
            if self._have_a_card_each(device):
                with self._in_touch():
                    self._adding = dist.new_group(backend="nccl", timeout=timeout)
        except BaseException:
            self.close()
            raise

    def exchange(self, message: bytes) -> list[bytes]:
        """The messages of all ranks, in their order. Each may be of another length."""
        room_nbytes = self._room_nbytes
        lengths, rows = self._gathered(message, room_nbytes)
        longest = max(lengths)
        if longest > room_nbytes:  # all see that
            room_nbytes = 1 << (longest - 1).bit_length()
            lengths, rows = self._gathered(message, room_nbytes)
            self._room_nbytes = min(room_nbytes, MOST_ROOM_KEPT_NBYTES)
        return [row[:length].tobytes() for row, length in zip(rows, lengths, strict=True)]

    def tell(self, data: bytes | None) -> bytes:
        """What rank 0 tells all, which is its `data`; the others give None."""
        own = np.frombuffer(data or b"", np.uint8)
        length = torch.tensor([len(own)])
        with self._in_touch():
            dist.broadcast(length, 0)
        told = np.empty(_checked(int(length)), np.uint8)
        if self.rank == 0:
            told[:] = own
        if len(told):
            with self._in_touch():
                dist.broadcast(torch.from_numpy(told), 0)
        return told.tobytes()

    def add_up(self, vector: torch.Tensor) -> None:
        """Makes a vector [P] of any float dtype the sum of all ranks' vectors, in place.

        All ranks hold the same bits then. With a card for each rank the host does not wait for it.
        """
        with self._in_touch(), enough_memory():
            dist.all_reduce(vector, group=self._adding)

    def close(self) -> None:
        """Leaves the group; the others need not be there any more."""
        # What nccl has begun with a dead learner may have no end, and leaving would wait for that.
        if dist.is_initialized() and not (self._lost and self._adding):
            dist.destroy_process_group()

    def _gathered(self, message: bytes, room_nbytes: int) -> tuple[list[int], NDArray[np.uint8]]:
        """Lengths of all messages, and rows [K, room] with as much of each as has room."""
        own = np.zeros(HEAD_NBYTES + room_nbytes, np.uint8)
        own[:HEAD_NBYTES].view(np.int64)[0] = len(message)
        start = np.frombuffer(message, np.uint8)[:room_nbytes]
        own[HEAD_NBYTES : HEAD_NBYTES + len(start)] = start
        rows = torch.empty((self.ranks, len(own)), dtype=torch.uint8)
        with self._in_touch():
            dist.all_gather(list(rows), torch.from_numpy(own))
        found: NDArray[np.uint8] = rows.numpy()
        lengths = found[:, :HEAD_NBYTES].copy().view(np.int64)[:, 0].tolist()
        return [_checked(length) for length in lengths], found[:, HEAD_NBYTES:]

    def _have_a_card_each(self, device: torch.device) -> bool:
        """Whether all learners have GPUs, and no two of them the same. Raises ConfigError."""
        version = f"impala-redis {__version__} with torch {torch.__version__}"
        card = str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else ""
        installed = [json.loads(m) for m in self.exchange(json.dumps([version, card]).encode())]
        for rank, (other, others_card) in enumerate(installed):
            first, first_card = installed[0]
            if other != first:
                raise ConfigError(
                    f"rank {rank} of the group has {printable(other)}, and rank 0 has "
                    f"{printable(first)}; install the same for all of them"
                )
            if bool(others_card) != bool(first_card):
                without = 0 if others_card else rank
                raise ConfigError(
                    f"rank {without} of the group computes on its CPU, while others have GPUs; "
                    "take --device cpu or --device cuda for all of them"
                )
        cards = {others_card for _, others_card in installed}
        return bool(card) and len(cards) == self.ranks

    @contextmanager
    def _in_touch(self) -> Iterator[None]:
        """Wraps what needs the others. Raises GroupLost where they do not take part."""
        if self._lost is not None:
            raise self._lost
        try:
            yield
        except RuntimeError as error:
            if "CUDA error" in str(error):  # of what was computed before, not of the others
                raise
            self._lost = _lost(self.rank, "the other learners of its group", error)
            raise self._lost from error


def _checked(length: int) -> int:
    """A message's length. Raises GroupLost, if there is no such message."""
    if not 0 <= length <= MOST_NBYTES:
        raise GroupLost(f"a learner of the group says that its message has {length} bytes")
    return length


def _lost(rank: int, whom: str, error: RuntimeError) -> GroupLost:
    return GroupLost(
        f"rank {rank} has lost {whom} ({_why(error)}); torchrun begins all learners anew, as often "
        "as its --max-restarts allows, and rank 0 goes on from its last checkpoint"
    )


def _why(error: RuntimeError) -> str:
    """The first sentence of torch's message, without the place in torch's source."""
    words = re.sub(r"^\[[^\]]*\]\s*", "", str(error))
    return printable(re.split(r"\n|[.!?] ", words)[0])
