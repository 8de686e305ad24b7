"""Names that other projects and papers have for settings and options, and our names for them."""

# By the setting's key, what people type for it: small letters, and no dashes in front.
_SETTINGS = {
    "learning_rate": "lr, alpha, step-size",
    "learning_rate_schedule": "lr-schedule, anneal-lr, lr-decay",
    "discounting": "gamma, discount, discount-factor",
    "lambda": "gae-lambda, lam, td-lambda, vtrace-lambda",
    "total_frames": "steps, timesteps, total-timesteps, total-steps, n-timesteps, num-timesteps, "
    "frames, num-frames, max-frames, max-steps, total-env-steps, train-for-env-steps, "
    "total-environment-frames",
    "batch_size": "batch, bs, minibatch-size, mini-batch-size, train-batch-size",
    "unroll_length": "unroll, n-steps, nsteps, num-steps, rollout, rollout-length, rollout-steps, "
    "rollout-fragment-length, horizon",
    "envs_per_actor": "envs, n-envs, num-envs, nenvs, envs-per-worker, num-envs-per-worker, "
    "num-envs-per-env-runner",
    "num_actors": "actors, n-actors, workers, n-workers, num-workers, processes, num-processes, "
    "num-env-runners",
    "entropy_cost": "ent-coef, entropy, entropy-coef, entropy-coeff, entropy-loss-coeff",
    "baseline_cost": "vf-coef, value-coef, value-loss-coef, value-loss-coeff, vf-loss-coeff, "
    "baseline-coef",
    "grad_norm_clipping": "max-grad-norm, grad-clip, clip-grad-norm, gradient-clip",
    "reward_clipping": "clip-rewards, clip-reward, reward-clip",
    "clip_rho": "rho-bar, vtrace-clip-rho-threshold",
    "clip_c": "c-bar",
    "queue_blocks": "queue-size, max-queue-size",
    "replay_capacity": "buffer-size, replay-size, replay-buffer-size",
    "stop_at_return": "stop-reward, target-reward, target-return, reward-threshold",
    "frame_stack": "num-stack, n-stack",
    "lstm_size": "lstm, use-lstm, lstm-cell-size, rnn-size",
    "network": "model, policy, net, arch",
    "hidden_sizes": "hidden-size, hidden-layers, net-arch, fcnet-hiddens",
    "optimizer": "optim",
    "seed": "random-seed",
    "env": "env-id, env-name, environment, gym-id, game, task",
}
# The same for options of programs that are no settings.
_OPTIONS = {
    "device": "gpu, cuda, use-gpu, use-cuda, num-gpus, no-cuda",
    "checkpoint": "load, load-path, model-path, checkpoint-path, ckpt",
    "run_dir": "output, output-dir, out-dir, logdir, log-dir, savedir, save-dir, save-path, xpid",
    "episodes": "n-episodes, num-episodes, eval-episodes, n-eval-episodes",
    "greedy": "deterministic",
    "sampled": "stochastic",
    "redis_url": "redis, url, host, redis-host, server",
    "run": "run-name, name, run-id, exp-name, experiment",
    "resume": "continue, load-checkpoint, resume-from",
    "log_level": "verbose, verbosity, debug, quiet",
    "threads": "num-threads, n-threads",
    "video": "render, record, capture-video, save-video",
}
_OURS = {
    typed: ours for ours, words in (_SETTINGS | _OPTIONS).items() for typed in words.split(", ")
}


def our_name(typed: str) -> str | None:
    """Our name, in `_` spelling, for what other projects call `typed`; None if none is known."""
    return _OURS.get(typed.lstrip("-").replace("_", "-").lower())
