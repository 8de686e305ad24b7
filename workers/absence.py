"""What an actor does while its run has no learner: it says so, and after a while stops playing."""

import logging
import math

from impala_redis.common.errors import WaitedTooLong

log = logging.getLogger(__name__)

# An absence of this length is told once; a restart of the learner is shorter.
NOTICE_S = 60.0


class LearnerAbsence:
    """Follows how long no learner has renewed the run's lease."""

    def __init__(self, run: str, most_away_s: float, ends: bool) -> None:
        """After `most_away_s` seconds an actor ends if `ends`, else it pauses until one is back."""
        self._run, self._most_away_s, self._ends = run, most_away_s, ends
        self._noticed = self._paused = False

    def keeps_from_playing(self, away_s: float) -> bool:
        """Whether an actor whose learner has been away for so long is to pause.

        Raises WaitedTooLong: it is to end.
        """
        if away_s < min(NOTICE_S, self._most_away_s):
            if self._noticed or self._paused:
                log.warning("a learner of the run %r is back", self._run)
            self._noticed = self._paused = False
            return False
        if away_s >= self._most_away_s:
            self._stop_playing(away_s)
        elif not self._noticed:
            self._noticed = True
            then = "this actor ends after" if self._ends else "this actor pauses after"
            bound = f": {then} {self._most_away_s:g} s" if math.isfinite(self._most_away_s) else ""
            log.warning("%s; nobody trains on what is played here%s", self._what(away_s), bound)
        return self._paused

    def _stop_playing(self, away_s: float) -> None:
        if self._ends:
            raise WaitedTooLong(f"{self._what(away_s)}, and --max-learner-away-s is over")
        if not self._paused:
            self._paused = True
            log.warning("paused: %s; playing goes on when one is back", self._what(away_s))

    def _what(self, away_s: float) -> str:
        return f"no learner has held the run {self._run!r} for {away_s:.0f} s"
