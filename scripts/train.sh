#!/usr/bin/env bash
# The main job: sets up .venv if need be, trains CartPole-v1 through Redis until it is solved, and
# writes a report (--no-report leaves it out).
# Options of impala-train may follow, such as --seed 1 or --preset acrobot.
set -euo pipefail
cd "$(dirname "$0")/.."
scripts/setup.sh report
# The set-up above is not part of the training's wall time.
export IMPALA_STARTED_AT_UNIX_S="$(date +%s.%N)"

exec .venv/bin/impala-train --report "$@"
