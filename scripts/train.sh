#!/usr/bin/env bash
# The main job: sets up .venv if need be, and trains CartPole-v1 through Redis until it is solved.
# Options of impala-train may follow, such as --seed 1 or --preset acrobot.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh
# The set-up above is not part of the training's wall time.
export IMPALA_STARTED_AT_UNIX_S="$(date +%s.%N)"

# Whoever names the run, by option or variable, gets what they named.
for name in "$@" ${IMPALA_RUN_DIR+--run-dir} ${IMPALA_RUN+--run} ${IMPALA_PRESET+--preset} \
    ${IMPALA_ENV+--env} ${IMPALA_RESUME+--resume}; do
    case "$name" in
    --run* | --preset* | --env* | --config* | --resume*) exec .venv/bin/impala-train "$@" ;;
    esac
done

# Otherwise a new run directory each time: runs/cartpole, runs/cartpole-2, ...
dir="runs/cartpole"
for ((n = 2; ; n++)); do
    [ -e "$dir" ] || break
    dir="runs/cartpole-$n"
done
exec .venv/bin/impala-train --preset cartpole --run-dir "$dir" "$@"
