"""A further learner of a group: it makes the updates with the first one, and nothing else.

The first learner (`workers.learner`) opens the run, publishes, records, saves, and decides when the
run is over. A member claims its part of each batch and steps with all; its loop is `Member._train`.
"""

import contextlib
from collections.abc import Mapping
from typing import Any

from impala_redis.common.errors import ConfigError, RunMissing, printable
from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.grouping.company import Company
from impala_redis.common.grouping.facts import Facts, part_of
from impala_redis.common.grouping.group_learner import GroupLearner
from impala_redis.common.settings.env_id import module_of, travelling
from impala_redis.common.transport.learner_link import LearnerLink
from impala_redis.common.user_code.parts import imported
from impala_redis.workers import gathering, pacing
from impala_redis.workers.feeding import start_feeder
from impala_redis.workers.job import Means
from impala_redis.workers.plan import make_plan
from impala_redis.workers.seating import MeetingPlace
from impala_redis.workers.stopping import StopFlag
from impala_redis.workers.training import BATCH_TIMEOUT_S


class Member:
    """The life of a learner that is not the first of its group."""

    def __init__(
        self, asked: Mapping[str, Any], means: Means, place: MeetingPlace, stop: StopFlag
    ) -> None:
        """What is `asked` for makes the plan of the run, which the first learner has made, too."""
        self._asked, self._means, self._place, self._stop = asked, means, place, stop

    def run(self) -> None:
        """Makes updates until one of the group says that all end."""
        prefix, facts = gathering.follow(self._place)
        self._import_network(facts)
        with contextlib.ExitStack() as begun:
            gathered = gathering.join(self._place, prefix, facts, self._means)
            begun.callback(gathered.group.close)
            company = gathered.begin()
            feeder = self._start_feeding(facts, gathered.learner, begun)
            self._train(gathered.learner, feeder, company)

    def _import_network(self, facts: Facts) -> None:
        """Imports a network of the user's own that this learner's command names, too.

        What another learner tells is imported nowhere. Raises ConfigError: only it names one.
        """
        if not module_of(facts.spec.network):
            return
        environment, overrides = facts.config.environment, dict(self._asked["overrides"])
        if not overrides.keys() & {"env", "tasks"}:  # they may stand in a folder that is not here
            overrides |= {"tasks": environment.tasks or None, "env": environment.env}
        own = make_plan(**{**self._asked, "overrides": overrides}).config.model.network
        if travelling(own) != facts.spec.network:
            raise ConfigError(
                f"learner 0 of the group trains the network {printable(facts.spec.network)}, which "
                "the command of this learner does not name; give all learners the same --network"
            )
        imported(own, "network")

    def _start_feeding(
        self, facts: Facts, learner: GroupLearner, begun: contextlib.ExitStack
    ) -> Feeder:
        """Joins the run that the first learner has opened, and begins to claim."""
        means, seat, config = self._means, self._place.seat, facts.config
        transport, part = config.transport, part_of(config, seat.ranks)
        link = LearnerLink(
            *(means.redis_url, facts.spec.run, facts.holder, transport.lease_s),
            rank=seat.rank,
            ranks=seat.ranks,
        )
        begun.callback(link.close)
        with contextlib.suppress(RunMissing):  # lost meanwhile: the intake joins again
            pacing.wait_for_redis(link.join, means.redis_url, means.wait_redis_s, self._stop)
        feeder = start_feeder(link, facts.spec, part, learner, link.join)
        begun.callback(feeder.close)
        return feeder

    def _train(self, learner: GroupLearner, feeder: Feeder, company: Company) -> None:
        """Take a batch, update, settle: in each round what all of the group do."""
        while not company.leaving:
            if feeder.failure:
                raise feeder.failure
            leaving = "interrupted" if self._stop() else ""
            batch = company.next_batch(
                lambda: feeder.next_batch(BATCH_TIMEOUT_S), leaving, saving=False
            )
            ended = learner.update(batch, company.shares) if batch else learner.settle()
            company.note(ended)
            for update in ended:
                feeder.trained(update.batch)
