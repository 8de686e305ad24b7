"""Several tasks that one network learns together.

In each suite all levels have the same observations and actions.
"""

from typing import Any

from impala_redis.common.presets import atari
from impala_redis.common.presets.small import SMALL_TASK
from impala_redis.common.tasks.task import Task

# A score of 0 is that of who never arrives; a score of 1 that of the shortest ways, the mean over
# 20 to 40 worlds, found by a search for them.
_MINIGRID_5 = (
    Task("DoorKey-5x5", "MiniGrid-DoorKey-5x5-v0", reference=0.965),
    Task("DoorKey-6x6", "MiniGrid-DoorKey-6x6-v0", reference=0.969),
    Task("DoorKey-8x8", "MiniGrid-DoorKey-8x8-v0", reference=0.977),
    Task("MultiRoom-N2-S4", "MiniGrid-MultiRoom-N2-S4-v0", reference=0.832),
    Task("SimpleCrossingS9N1", "MiniGrid-SimpleCrossingS9N1-v0", reference=0.961),
)
# Scores of 0 and 1 are those of a random policy and of a person (Mnih et al. 2015, Extended Data
# Table 2).
_ATARI_4 = (
    Task("Pong", "ALE/Pong-v5", random=-20.7, reference=9.3),
    Task("Breakout", "ALE/Breakout-v5", random=1.7, reference=31.8),
    Task("Freeway", "ALE/Freeway-v5", random=0.0, reference=29.6),
    Task("Seaquest", "ALE/Seaquest-v5", random=68.4, reference=20_182.0),
)
# A score of 0 is that of actions drawn evenly; a score of 1 that of BabyAI's own bot, which does
# every mission. Those of UnlockLocal and UnlockPickup rest on few episodes.
_BABYAI_12 = tuple(
    Task(name, f"BabyAI-{name}-v0", random=random, reference=reference)
    for name, random, reference in (
        ("GoToRedBallGrey", 0.159, 0.915),
        ("GoToRedBall", 0.168, 0.922),
        ("GoToObj", 0.143, 0.928),
        ("GoToLocalS5N2", 0.182, 0.894),
        ("GoToLocal", 0.194, 0.927),
        ("GoToSeqS5R2", 0.144, 0.916),
        ("PickupDist", 0.102, 0.903),
        ("PickupLoc", 0.085, 0.913),
        ("OneRoomS8", 0.084, 0.920),
        ("PutNextLocalS5N3", 0.012, 0.874),
        ("UnlockLocal", 0.017, 0.978),
        ("UnlockPickup", 0.000, 0.755),
    )
)

_LEVELS: dict[str, Any] = SMALL_TASK | {
    "activation": "relu",
    "queue_blocks": 1,
    "queue_policy": "block",  # no step is dropped
    "reward_scale": 1.0,
    "lambda": 0.95,
    "entropy_cost": 0.01,
    "entropy_schedule": "linear",
    "learning_rate": 1e-3,
    "grad_norm_clipping": 1.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    "minigrid-5": _LEVELS
    | {
        "tasks": _MINIGRID_5,
        "text": "bag",
        "hidden_sizes": (128, 128),
        "envs_per_actor": 160,  # 32 of each level, in every batch
        "batch_size": 160,
        "total_frames": 3_500_000,
        "log_interval_s": 1.0,
    },
    "babyai-12": _LEVELS
    | {
        "tasks": _BABYAI_12,
        "text": "lstm",
        "hidden_sizes": (128,),
        "lstm_size": 128,
        "envs_per_actor": 192,  # 16 of each level, in every batch
        "batch_size": 192,
        "total_frames": 24_000_000,
        "log_interval_s": 5.0,
        "checkpoint_interval_s": 60.0,
    },
    # The rewards of these games differ a hundredfold; PopArt gives their values one measure.
    "atari-multi": atari.PRESETS["atari-fast"]
    | {
        "tasks": _ATARI_4,
        "popart": True,
        "reward_clipping": "none",
        # A person's score in Seaquest is a thousand times what there is to learn from at first.
        "popart_least": 1e-3,
        # Advantages are of unit size, and larger than those of rewards that are rare.
        "entropy_cost": 0.01,
        "stop_at_return": None,
        "total_frames": 12_000_000,
    },
}
