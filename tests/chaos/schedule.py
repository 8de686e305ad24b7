"""What will go wrong, and when: drawn from a seed before anything runs. Pure."""

import random
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple


class Kind(NamedTuple):
    """How often a fault comes, relative to the others, and how long it may last."""

    weight: float
    shortest_s: float = 0.0
    longest_s: float = 0.0


# What each one does stands in chaos/faults.py, under the same name.
KINDS = {
    "kill_actor": Kind(4),
    "stop_actor": Kind(2),
    "kill_learner": Kind(1),
    "stop_learner": Kind(0.5),
    "second_learner": Kind(1),
    "take_over": Kind(0.5),
    "freeze_server": Kind(3, 0.3, 6.0),
    "pause_clients": Kind(2, 0.5, 4.0),
    "kill_server": Kind(2, 0.0, 3.0),
    "stop_server": Kind(1, 0.0, 3.0),
    "wipe_server": Kind(1),
    "squeeze_memory": Kind(3, 1.0, 4.0),
    "cut_network": Kind(3),
    "part_actors": Kind(2, 1.0, 7.0),
    "part_learner": Kind(2, 1.0, 7.0),
    "slow_network": Kind(2, 2.0, 6.0),
    "slice_network": Kind(1, 1.0, 3.0),
    "drop_replies_to_actors": Kind(3, 1.0, 4.0),
    "drop_replies_to_learner": Kind(3, 1.0, 4.0),
    "push_garbage": Kind(1),
}
# Behind sentinels programs go to the servers themselves, past the proxies that break the network.
# And a master that only falls silent is used by whoever does not connect anew: what it takes then
# is lost with it.
KINDS_WITH_SENTINELS = {
    "fail_over": Kind(4),
    **{
        name: KINDS[name]
        for name in (
            *("kill_actor", "stop_actor", "kill_learner", "stop_learner", "second_learner"),
            *("take_over", "squeeze_memory", "push_garbage"),
        )
    },
}
SHORTEST_CALM_S, LONGEST_CALM_S = 0.5, 4.0


class Fault(NamedTuple):
    """One thing that goes wrong: after a calm, for a while."""

    calm_s: float
    kind: str
    for_s: float
    draw: int  # a seed for whatever the fault itself must choose


def faults(
    seed: int, chosen: Collection[str] = (), kinds: Mapping[str, Kind] = KINDS
) -> Iterator[Fault]:
    """The faults of that seed, without end; those chosen alone if any are named.

    Each kind comes once before any comes twice, so that a short run has them all.
    """
    rng = random.Random(seed)
    names = [name for name in kinds if not chosen or name in chosen]
    first = rng.sample(names, len(names))
    weights = [kinds[name].weight for name in names]
    while True:
        name = first.pop() if first else rng.choices(names, weights)[0]
        kind = kinds[name]
        yield Fault(
            calm_s=rng.uniform(SHORTEST_CALM_S, LONGEST_CALM_S),
            kind=name,
            for_s=rng.uniform(kind.shortest_s, kind.longest_s),
            draw=rng.getrandbits(32),
        )
