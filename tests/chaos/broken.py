"""Runs a learner with one mechanism of the transport switched off: the chaos run must notice.

broken.py dedupe|fencing|commit [the learner's own options]
"""

import sys

from impala_redis.common.feeding.sequences import Sequences
from impala_redis.common.transport import functions
from impala_redis.workers import learner

# What is replaced in the server's functions.
SABOTAGE = {
    # A block that is sent again is stored again.
    "dedupe": [("if tonumber(sequence) - number < last then", "if false then")],
    # A learner whose epoch is over goes on as if it were not.
    "fencing": [("if current ~= mine then", "if false then")],
    # What one rank of a group has taken is not told from what another has (chaos/ranks.py).
    "cursor": [
        (
            "'in_flight', 'taken:' .. rank, 'committed:' .. rank)",
            "'in_flight', 'taken:0', 'committed:0')",
        ),
        (
            "redis.call('HSET', epoch, 'taken:' .. rank, taken, 'committed:' .. rank, committed,",
            "redis.call('HSET', epoch, 'taken:0', taken, 'committed:0', committed,",
        ),
    ],
    # A commit that is sent again settles other blocks and counts twice.
    "commit": [
        ("if committed == before + settled then return committed end", ""),
        ("if committed ~= before or settled > ", "if settled > "),
    ],
}


def sabotaged(mechanism: str) -> str:
    """The server's functions without that mechanism."""
    source = functions.FILE.read_text()
    for sound, broken in SABOTAGE[mechanism]:
        assert source.count(sound) == 1, sound
        source = source.replace(sound, broken)
    return source


def main() -> None:
    """Becomes the learner."""
    _, mechanism, *options = sys.argv
    source = sabotaged(mechanism)
    functions.provide = lambda client, url, *keys: client.function_load(source, replace=True)
    if mechanism == "dedupe":
        Sequences.follow = lambda self, origin: None  # type: ignore[method-assign]
    sys.argv = ["impala-learner", *options]
    learner.main()


if __name__ == "__main__":
    main()
