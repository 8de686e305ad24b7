"""Games of Atari."""

from typing import Any

# The paper's Table G.1, from which the defaults are taken, and what the environment needs.
ATARI: dict[str, Any] = {
    "env": "ALE/Pong-v5",
    "frame_stack": 4,
    # The shallow network of the paper's Atari runs has three convolutions.
    "network": "nature",
    "hidden_sizes": (512,),
    "activation": "relu",
    "envs_per_actor": 8,
    "total_frames": 50_000_000,  # 200 million frames of the game
    "compression": "zstd",
    "log_interval_s": 5.0,
    "checkpoint_interval_s": 60.0,
}

PRESETS: dict[str, dict[str, Any]] = {
    "atari": ATARI,
    # A smaller network with more and smaller updates than the paper's. Half of each is replayed,
    # because playing a step costs twice as much as learning from it.
    "atari-fast": ATARI
    | {
        "network": "shallow",
        "hidden_sizes": (256,),
        "envs_per_actor": 16,
        "batch_size": 8,
        "replay_share": 0.5,
        "replay_capacity": 500,
        # Little lag: 12 updates; with four blocks in the list it is 24.
        "queue_blocks": 1,
        "publish_interval_s": 0.2,
        "optimizer": "adam",
        "reduction": "mean",
        # It falls to 0: at a constant rate a score stayed near 0 from 2.2 to 3 million steps.
        "learning_rate": 5e-4,
        "grad_norm_clipping": 0.5,
        # Points are rare and advantages small: larger weights of the entropy bonus and the baseline
        # would outweigh the policy gradient.
        "entropy_cost": 0.002,
        "entropy_schedule": "linear",  # with a constant weight drawn actions ended at 17.5
        "baseline_cost": 0.25,
        "lambda": 0.95,
        "stop_at_return": 18.0,
        "total_frames": 7_000_000,
    },
}
