"""How the learners of a group find together, and what each of them then computes with."""

from typing import NamedTuple

from impala_redis.common.grouping.company import Company
from impala_redis.common.grouping.facts import Facts, facts_in
from impala_redis.common.grouping.group import Group, device_for
from impala_redis.common.grouping.group_engine import make_group_engine
from impala_redis.common.grouping.group_learner import GroupLearner
from impala_redis.common.learning.engines import may_use_gpu
from impala_redis.workers.job import Means
from impala_redis.workers.seating import MeetingPlace, leave


class Gathered(NamedTuple):
    """A group that has found together, and this learner in it, with a fresh network."""

    group: Group
    learner: GroupLearner

    def begin(self) -> Company:
        """Gives the others this learner's state, or takes it over from the first one."""
        learner = self.learner
        state = self.group.tell(learner.as_bytes() if self.group.rank == 0 else None)
        if self.group.rank > 0:
            learner.take_over(state)
        return Company(self.group, learner)


def lead(place: MeetingPlace, facts: Facts, means: Means) -> Gathered:
    """Calls the others in and tells them the run, as the first learner does.

    Raises SystemExit where this one is asked to stop, or another one has ended; and what `join`
    does.
    """
    prefix = place.rendezvous.call_in(facts.packed())
    if prefix is None:
        leave(place)
    return join(place, prefix, facts, means)


def follow(place: MeetingPlace) -> tuple[str, Facts]:
    """Waits for the first learner; where all meet, and what it tells. Raises as `lead`."""
    came = place.rendezvous.come_in()
    if came is None:
        leave(place)
    return came[0], facts_in(came[1])


def join(place: MeetingPlace, prefix: str, facts: Facts, means: Means) -> Gathered:
    """The group as each learner finds it. Raises GroupLost, ConfigError and DeviceFull."""
    wanted = means.device if may_use_gpu(means.device, facts.spec) else "cpu"
    device = device_for(place.seat, wanted)
    group = Group(place.seat, place.store, prefix, device)
    engine = make_group_engine(device, means.threads, facts.spec, facts.config, group)
    return Gathered(group, GroupLearner(facts.config, engine, group))
