"""Whether the run's learner lives, judged by what Redis tells of its lease. Pure."""

# Between two looks. A longer time is Redis's own silence, and says nothing about the learner.
LONGEST_GAP_S = 2.0


class LearnerSigns:
    """Adds up the time in which the lease was not renewed although Redis answered."""

    def __init__(self, now_s: float) -> None:
        """`now_s`, here and below, is in seconds of a monotonic clock."""
        self.away_s = 0.0  # without a renewal
        self._renewed_at, self._looked_at_s = "", now_s

    def note(self, renewed_at: str | None, now_s: float) -> None:
        """Takes what Redis told: another text than before is a renewal, whatever it says.

        None: Redis holds no such run any more, so nobody has renewed anything.
        """
        gap_s = min(now_s - self._looked_at_s, LONGEST_GAP_S)
        self._looked_at_s = now_s
        if renewed_at is not None and renewed_at != self._renewed_at:
            self._renewed_at, self.away_s = renewed_at, 0.0
        else:
            self.away_s += gap_s
