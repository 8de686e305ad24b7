"""Which charts a report has, by section.

A figure is also drawn by the chart that its row in `common.records.figures` names.
"""

from collections.abc import Iterator, Sequence

from impala_redis.common.records.history import Run
from impala_redis.workers.reporting.chart import Chart, Line
from impala_redis.workers.reporting.infos import info_charts
from impala_redis.workers.reporting.tasks import task_charts

TASKS = (
    Chart(
        "tasks-score",
        "Mean score of the tasks",
        "The mean of their scores, each 0 for random play and 1 for the reference, and 1 at most.",
        (Line("score"),),
        limit=("stop_at_score", "solved at"),
    ),
)

LEARNING = (
    Chart(
        "return-over-episodes",
        "Return over episodes",
        "Training episodes in the order in which they were trained on.",
        (Line("mean_return_100", "mean of the last 100"),),
        over="episodes",
        band=("episode_return_min", "episode_return_max"),
        dots="episode_returns",
        limit=("stop_at_return", "solved at"),
        from_zero=False,
    ),
    Chart(
        "return-over-frames",
        "Return over frames",
        "Mean return of the last 100 training episodes.",
        (Line("mean_return_100"),),
        limit=("stop_at_return", "solved at"),
        from_zero=False,
    ),
    Chart(
        "return-over-time",
        "Return over time",
        "The same over the seconds since the run began.",
        (Line("mean_return_100"),),
        over="time_s",
        limit=("stop_at_return", "solved at"),
        from_zero=False,
    ),
    Chart(
        "episode-length",
        "Episode length",
        "Mean length of the episodes that ended between two records.",
        (Line("episode_length_mean"),),
    ),
    Chart(
        "critic-loss",
        "Critic loss",
        "Half the squared distance of the values from their targets, before its weight.",
        (Line("baseline_loss"),),
        may_be_log=True,
    ),
    Chart(
        "policy-loss",
        "Policy loss",
        "The policy gradient's loss; its sign and size say little, its jumps do.",
        (Line("policy_loss"),),
        from_zero=False,
    ),
    Chart(
        "entropy",
        "Entropy of the target policy",
        "Falls as the policy makes up its mind; at 0 it explores no more.",
        (Line("entropy"),),
    ),
    Chart(
        "actions",
        "Action probabilities",
        "Mean probability of each action under the target policy.",
        (Line("pi_mean_*", "action"),),
    ),
    Chart(
        "policy-std",
        "Standard deviation of actions",
        "Mean over the numbers of an action; at 0 the policy explores no more.",
        (Line("policy_std"),),
    ),
    Chart(
        "grad-norm",
        "Gradient norm",
        "Before it is clipped.",
        (Line("grad_norm"),),
        limit=("grad_norm_clipping", "clipped at"),
        may_be_log=True,
    ),
    Chart("learning-rate", "Learning rate", "As scheduled.", (Line("learning_rate"),)),
    Chart(
        "reward-std",
        "Deviation that rewards are divided by",
        "The running standard deviation of the discounted returns, where rewards are normalised.",
        (Line("reward_std"),),
        may_be_log=True,
    ),
    Chart(
        "learned",
        "Steps learned from",
        "Monte Carlo returns leave out the steps whose episode does not end inside the unroll.",
        (Line("learned_share"),),
        usual=1.0,
    ),
)
CORRECTION = (
    Chart(
        "importance-ratio",
        "Importance ratio per batch",
        "Target over behaviour policy, for the actions taken: 1 when the actors' policy is the "
        "learner's.",
        (Line("rho_mean", "mean"), Line("rho_min", "min"), Line("rho_max", "max")),
        limit=("clip_rho", "rho-bar"),
        from_zero=False,
        may_be_log=True,
    ),
    Chart(
        "clipped",
        "Ratios above the clips",
        "Share of the steps whose ratio was above rho-bar, and above c-bar. V-trace clips those.",
        (Line("rho_clipped_share", "above rho-bar"), Line("c_clipped_share", "above c-bar")),
    ),
    Chart(
        "policy-lag-versions",
        "Policy lag",
        "Updates made between the weights that played a trajectory and those that trained on it.",
        (
            Line("policy_lag_mean", "mean"),
            Line("policy_lag_p95", "95th percentile", compared=False),
            Line("policy_lag_max", "max"),
        ),
    ),
    Chart(
        "policy-lag-seconds",
        "Policy lag",
        "Age of the weights that played a trajectory, when it was trained on.",
        (
            Line("policy_lag_s_mean", "mean"),
            Line("policy_lag_s_p95", "95th percentile", compared=False),
            Line("policy_lag_s_max", "max"),
        ),
    ),
    Chart(
        "replay-lag",
        "Lag of replayed trajectories",
        "Mean over the trajectories that came from the replay.",
        (Line("replay_lag_mean"),),
    ),
    Chart(
        "replay-share",
        "Share of replayed trajectories",
        "The share among the trajectories that were trained on.",
        (Line("replay_share"),),
    ),
)
SPEED = (
    Chart(
        "frames-per-second",
        "Frames per second",
        "Environment steps trained on.",
        (Line("frames_per_s"),),
        over="time_s",
        unit="",  # the title says it
    ),
    Chart(
        "stages",
        "An update's time, by stage",
        "On the learner's main thread, one stage after the other; on a GPU the device's stages go "
        "on beside the others. Without the first record, in which the actors start.",
        (
            Line("wait_s", "wait"),
            Line("transfer_s", "transfer", compared=False),
            Line("forward_s", "forward"),
            Line("backward_s", "backward"),
            Line("optimizer_s", "optimizer", compared=False),
            Line("graph_s", "graph"),
            Line("weights_s", "weights", compared=False),
        ),
        over="time_s",
        stacked=True,
        from_start=False,
    ),
    Chart(
        "beside",
        "At the same time, on other threads",
        "For each batch: checking and copying blocks into it, and waiting for Redis's replies; "
        "for each version: publishing it. By the clock, waits for a processor or the interpreter "
        "included. Without the first record.",
        (
            Line("batch_s", "batching"),
            Line("claim_s", "claiming"),
            Line("publish_s", "publishing"),
        ),
        over="time_s",
        from_start=False,
    ),
    Chart(
        "learner-waits",
        "Waiting and computing",
        "Without a batch: waiting for actors, or for the learner's own intake. The device is busy "
        "from an update's first operation to its last. Without the first record.",
        (Line("wait_share", "without a batch"),),
        over="time_s",
        from_start=False,
        unit="% of its time",
    ),
)
GROUP = (
    Chart(
        "ranks-stand-by",
        "Ranks that stand by",
        "How long each learner of the group waited for the others: a slow one stands by least. The "
        "first twelve are drawn, without the first record.",
        (Line("standby_share:*", "rank", compared=False),),
        over="time_s",
        from_start=False,
        unit="% of their time",
    ),
    Chart(
        "ranks-wait",
        "Ranks without a batch",
        "How long each learner of the group had no batch of its own: it waited for actors, or for "
        "its own intake. The first twelve are drawn, without the first record.",
        (Line("wait_share:*", "rank", compared=False),),
        over="time_s",
        from_start=False,
        unit="% of their time",
    ),
)
TRANSPORT = (
    Chart(
        "queue-depth",
        "Queue depth",
        "Found in the list when the learner last claimed from it.",
        (Line("queue_blocks"),),
        over="time_s",
        limit=("queue_blocks", "bound"),
    ),
    Chart(
        "queue-wait",
        "Queue wait",
        "How long a block lies in the list: mean length found over blocks claimed per second.",
        (Line("queue_wait_s"),),
        over="time_s",
    ),
    Chart(
        "dropped",
        "Dropped blocks",
        "The oldest goes when the list is full: actors do not wait.",
        (Line("dropped_share"),),
        over="time_s",
        unit="% of those pushed",
    ),
    Chart(
        "actor-rates",
        "Actor rates",
        "What one actor plays while it plays: mean, and from the slowest to the fastest.",
        (Line("actor_frames_per_s_mean", "mean"),),
        over="time_s",
        band=("actor_frames_per_s_min", "actor_frames_per_s_max"),
    ),
    Chart(
        "actors",
        "Number of actors",
        "The actors whose blocks were trained on.",
        (Line("actors"),),
        over="time_s",
    ),
)

SECTIONS = {
    "Task by task": TASKS,
    "Learning": LEARNING,
    "Off-policy correction": CORRECTION,
    "The learner's time": SPEED,
    "The group of learners": GROUP,
    "Actors and the queue": TRANSPORT,
}


def all_charts(there: Sequence[str], runs: Sequence[Run]) -> Iterator[tuple[str, Chart]]:
    """Each chart with its section, those of tasks and infos as far as the figures are there."""
    for section, charts in SECTIONS.items():
        yield from ((section, chart) for chart in charts)
        if charts is TASKS:
            yield from ((section, chart) for chart in task_charts(there, runs))
    yield from (("Numbers of the environment", chart) for chart in info_charts(there))
