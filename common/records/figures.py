"""The figures of a run's records: their names, units and meanings, and where each one shows up.

A new figure needs its producer and a row here. It then stands in `metrics.jsonl`, in TensorBoard,
in the report, in docs/metrics.md (`scripts/write_docs.py`), and, `in_status`, in impala-status.
"""

import itertools
from collections.abc import Iterable

from impala_redis.common.records.figure import EPISODE_INFO, SHARE, Figure, Reduction, alike
from impala_redis.common.records.refusals import REFUSALS

_GROUPS: dict[str, list[Figure]] = {
    "Progress": [
        Figure("unix_s", "s", "Unix time at which the record was written", in_tensorboard=False),
        Figure("time_s", "s", "time since the run began; a resumed run goes on where it was"),
        Figure(
            "frames",
            "",
            "environment steps trained on, replayed ones not counted",
            in_tensorboard=False,  # it is the horizontal axis
            in_status=True,
        ),
        Figure(
            "game_frames",
            "",
            "frames of the game: 4 for a step in Atari, where actions are repeated, else 1",
            in_status=True,
        ),
        Figure("updates", "", "updates of the weights, in all", in_status=True),
        Figure("episodes", "", "episodes that ended in what was trained on", in_status=True),
        Figure(
            "weights_version", "", "version of the network's weights, one more with each update"
        ),
        Figure("mean_return_100", "", "mean return of 100 episodes", in_status=True),
        *alike(
            {
                "episode_return_mean": "mean",
                "episode_return_min": "min",
                "episode_return_max": "max",
            },
            "",
            "return of the episodes since the last record",
        ),
        Figure("episode_length_mean", "steps", "mean length of the episodes since the last record"),
        Figure(
            "episode_returns",
            "",
            "returns of at most 20 of the episodes since the last record (not in TensorBoard)",
            in_tensorboard=False,  # a list
        ),
        Figure(
            f"{EPISODE_INFO}*",
            "",
            "mean of a number that an environment gives in an episode's last info, over the "
            "episodes since the last record that have it: those under `episode_info`, and those "
            "that `--info-keys` names",
            in_status=True,
        ),
        Figure(
            "frames_per_s", "frames/s", "steps trained on since the last record", in_status=True
        ),
        Figure("updates_per_s", "updates/s", "updates made since the last record", in_status=True),
    ],
    "Tasks": [
        Figure(
            "score",
            "",
            "mean of the tasks' scores, once each has one; only a run with tasks has these figures",
            in_status=True,
        ),
        Figure(
            "task_return:*",
            "",
            "for each task, by its name: mean return of 100 of its episodes; `mean_return_100` is "
            "the mean over the tasks",
            in_status=True,
        ),
        Figure(
            "task_score:*",
            "",
            "the same return where random play is 0 and the reference is 1, and 1 at most",
            in_status=True,
        ),
        Figure(
            "task_frames:*",
            "",
            "environment steps trained on in the task, replayed ones not counted",
            in_status=True,
        ),
    ],
    "Learning": [
        *alike(
            {"total_loss": "mean", "policy_loss": "mean", "baseline_loss": "mean"},
            "",
            "losses as reduced by `--reduction`; the baseline is the critic",
        ),
        Figure("entropy", "nats", "entropy of the target policy, mean over rows"),
        Figure(
            "pi_mean_*",
            SHARE,
            "mean probability of the action of that number under the target policy, up to 8 "
            "actions",
        ),
        Figure(
            "policy_std",
            "",
            "mean standard deviation of the target policy, where actions are numbers",
        ),
        *alike(
            {"rho_min": "min", "rho_mean": "mean", "rho_max": "max"},
            "",
            "importance ratio pi/mu of the actions taken, not clipped",
        ),
        Figure("rho_clipped_share", SHARE, "share of the rows whose ratio is above rho-bar"),
        Figure("c_clipped_share", SHARE, "share of the rows whose ratio is above c-bar"),
        Figure(
            "learned_share",
            SHARE,
            "share of the real rows that make up the loss: below 1 only with Monte Carlo returns",
        ),
        *alike(
            {"policy_lag_mean": "mean", "policy_lag_p95": "mean", "policy_lag_max": "max"},
            "versions",
            "learner's version minus that of the trajectory's policy",
            in_status=True,
        ),
        *alike(
            {"policy_lag_s_mean": "mean", "policy_lag_s_p95": "mean", "policy_lag_s_max": "max"},
            "s",
            "time since the version of the trajectory's policy was made",
            in_status=True,
        ),
        Figure("replay_share", SHARE, "share of the batches that was replayed"),
        Figure("replay_lag_mean", "versions", "mean policy lag of what was replayed"),
        Figure("grad_norm", "", "global norm of the gradients, before it is clipped"),
        Figure("learning_rate", "", "learning rate as scheduled"),
        Figure("population:*", "", "a member's generation, refusals, settings as they are", "max"),
        Figure("reward_std", "", "deviation by which `--normalize-rewards` divides rewards"),
        Figure("popart_std", "", "deviation that values by `--popart` are in units of"),
        Figure("popart_std:*", "", "the same for each task, by its name"),
        Figure("updates_skipped", "", "updates whose gradients were not finite", in_status=True),
    ],
    "Where the time goes": [
        Figure(
            "wait_share",
            SHARE,
            "share of the learner's time in which no batch was ready",
            in_status=True,
        ),
        Figure("wait_s", "s", "time in which no batch was ready, for an update"),
        Figure(
            "device_busy_share",
            SHARE,
            "share of the time in which the device had an update to compute; a GPU's by its own "
            "clock, pauses between its kernels included",
            in_status=True,
            chart="learner-waits",
        ),
        Figure(
            "transfer_s",
            "s",
            "batch to the device and stacks of frames, for an update; on a GPU what was left of "
            "it to wait for",
            in_status=True,
        ),
        Figure("forward_s", "s", "network and loss, for an update"),
        Figure("backward_s", "s", "gradients, for an update"),
        Figure("optimizer_s", "s", "the optimizer's step, for an update"),
        Figure("exchange_s", "s", "waiting for other learners' gradients, and adding them up"),
        Figure("graph_s", "s", "the stages that have no figure of their own, as a CUDA graph"),
        Figure("device_memory_bytes", "bytes", "GPU memory held by torch", "max", in_status=True),
        Figure("weights_s", "s", "copying the weights out, for an update"),
        Figure(
            "batch_s",
            "s",
            "checking blocks and copying them into a batch; beside the computation, waits for the "
            "interpreter included",
        ),
        Figure("claim_s", "s", "waiting for Redis to give blocks, for an update"),
        Figure(
            "claim_share", SHARE, "share of the feeder's time: waiting for Redis", in_status=True
        ),
        Figure("publish_s", "s", "packing and sending one version"),
        Figure(
            "publish_share",
            SHARE,
            "share of the publisher's time: packing and sending",
            in_status=True,
        ),
        Figure("published_per_s", "versions/s", "versions published since the last record"),
        *alike(
            {"feeder_cpu_s": "mean", "publisher_cpu_s": "mean"},
            "s",
            "processor time of that thread, for an update",
        ),
        Figure("unroll_s", "s", "time that an actor took for one block, cut ones by their share"),
        Figure("actors", "", "actors whose blocks were trained on since the last record"),
        *alike(
            {
                "actor_frames_per_s_mean": "mean",
                "actor_frames_per_s_min": "min",
                "actor_frames_per_s_max": "max",
            },
            "frames/s",
            "how fast one actor plays",
        ),
    ],
    "A group of learners": [
        Figure("ranks", "", "learners in the group; one learner alone has none", in_status=True),
        *alike(
            {"wait_share:*": "mean", "standby_share:*": "mean"},
            SHARE,
            "for each learner, by its rank in the group: share of its time without a batch of its "
            "own, and share in which it waited for the others; of the last 5 s or more",
            in_status=True,
        ),
    ],
    "The queue": [
        Figure("queue_blocks", "blocks", "length of the list when the learner last looked"),
        Figure("queue_wait_s", "s", "a block's mean time in the list, by Little's law"),
        Figure("received_bytes_per_s", "bytes/s", "blocks received since the last record"),
        Figure(
            "bytes_per_step",
            "bytes",
            "size of blocks on the wire, for a row of one environment: a step, or the reset after "
            "an episode",
            in_status=True,
        ),
        Figure("blocks_produced", "blocks", "blocks pushed, by the books"),
        Figure("blocks_dropped", "blocks", "blocks dropped from a full list, by the books"),
        Figure(
            "dropped_share",
            SHARE,
            "share dropped of what was pushed between the last two readings of the books, a second "
            "apart or less",
        ),
        Figure("blocks_refused", "blocks", "blocks that were damaged, unfit or of another run"),
        Figure("columns_refused", "", "columns refused, alone or with their block", in_status=True),
        Figure("refused_share", SHARE, "share refused of the columns that came", in_status=True),
        *alike(
            dict.fromkeys(REFUSALS, "mean"),
            "",
            "columns refused for that cause; a column with several causes counts under the first",
        ),
        Figure("columns_stale", "", "columns of blocks that were older than `--max-policy-lag`"),
        Figure("stale_share", SHARE, "share of them among the columns that came"),
        Figure("episodes_left_out", "", "episodes of refused columns, or of a return not finite"),
        Figure("runs_lost", "", "times the server had lost the run or part of it", in_status=True),
    ],
}

# Every figure, by its name.
FIGURES: dict[str, Figure] = {
    figure.name: figure._replace(group=group)
    for group, figures in _GROUPS.items()
    for figure in figures
}


def find(name: str) -> Figure | None:
    """The figure of that name, or of a name that has a star for its end."""
    return (
        FIGURES.get(name)
        or FIGURES.get(name.rstrip("0123456789") + "*")
        or FIGURES.get(name.partition(":")[0] + ":*")
    )


def in_status(names: Iterable[str]) -> list[str]:
    """Those of these names whose figures the learner leaves in Redis."""
    return [name for name in names if (figure := find(name)) is not None and figure.in_status]


def reduction_of(name: str) -> Reduction:
    """How values of that name become one; the end of a name that is not in the table decides."""
    if figure := find(name):
        return figure.reduction
    return "min" if name.endswith("_min") else "max" if name.endswith("_max") else "mean"


def rows() -> list[list[Figure]]:
    """The table in rows: figures that stand beside each other and mean the same share one."""
    by_row = itertools.groupby(FIGURES.values(), lambda f: (f.group, f.unit, f.meaning))
    return [list(members) for _, members in by_row]
