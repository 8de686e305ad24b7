"""The state of training that one member of a population takes over from another, checked."""

import hashlib
from pathlib import Path

import numpy as np

from impala_redis.common.errors import CheckpointError
from impala_redis.common.population.member import Member
from impala_redis.common.records.checkpoint import Checkpoint, unpacked
from impala_redis.common.run.architecture import NORMALIZER

# Facts take some KB more or less; the tensors of states that fit each other are as many bytes.
MOST_BYTES_MORE = 65_536
# No number is larger than this where training goes well, by the first letters of the tensor's name:
# the figures of observations are as large as these, and sums of squares grow with a run.
_LARGEST = {
    **dict.fromkeys((f"model.{name}" for name in NORMALIZER), 1e15),
    **{"model.": 1e6, "averaged.": 1e6, "moments.": 1e30},
    "": 1e15,  # all others
}


def read_state(data: bytes, member: Member) -> Checkpoint:
    """A state that a member offers. Raises CheckpointError: it is none to go on with.

    Whether its tensors fit the network is for `Learner.adopt` to say.
    """
    path = Path(f"the state of {member.name}")
    if hashlib.sha256(data).hexdigest() != member.digest:
        raise CheckpointError(f"{path} is damaged: its SHA-256 does not fit")
    state = unpacked(data, path)
    for name, tensor in state.tensors.items():
        if not np.issubdtype(tensor.dtype, np.floating):
            continue
        numbers = np.asarray(tensor, np.float64)
        # What is not a number fails the comparison, too.
        largest = next(of for begin, of in _LARGEST.items() if name.startswith(begin))
        if not (np.abs(numbers) <= largest).all():
            raise CheckpointError(f"{path} is damaged: a number of {name} is too large, or none")
        if name.startswith("optimizer.square.") and (numbers < 0).any():
            raise CheckpointError(f"{path} is damaged: {name}, an average of squares, is negative")
    return state
