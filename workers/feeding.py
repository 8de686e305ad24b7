"""How a learner's batches are filled: by a thread that claims blocks for it."""

from collections.abc import Callable

from impala_redis.common.feeding.feeder import Feeder
from impala_redis.common.feeding.intake import Intake
from impala_redis.common.feeding.replay import make_replay
from impala_redis.common.feeding.tally import Refusals
from impala_redis.common.learning.learner import Learner
from impala_redis.common.run.config import Config
from impala_redis.common.run.spec import RunSpec
from impala_redis.common.transport.learner_link import LearnerLink


def start_feeder(
    link: LearnerLink,
    spec: RunSpec,
    part: Config,
    learner: Learner,
    reopen: Callable[[], None],
    refusals: Refusals | None = None,
) -> Feeder:
    """Begins to claim what this learner trains on.

    Args:
      link: through which it does.
      spec: the run's.
      part: the settings of this learner's part of each batch.
      learner: what computes the updates.
      reopen: opens the run again after the server has lost it, on the feeder's thread.
      refusals: counts what is not trained on.
    """
    engine, batch_size = learner.engine, part.training.batch_size
    intake = Intake(
        link,
        spec,
        part.transport.max_policy_lag,
        learner_version=lambda: learner.version,
        reopen=reopen,
        refusals=refusals,
        # Rank 0 may have ended an update, and published, a moment before another rank.
        ahead=int(link.rank > 0),
    )
    feeder = Feeder(
        intake,
        lambda: engine.empty_rows(batch_size),
        engine.stage,
        make_replay(spec, part),
        batches=2 + engine.ahead,
    )
    feeder.start()
    return feeder
