"""Whether the run's learner lives, judged by what Redis tells of its lease. Pure."""

# Between two looks. A longer time is Redis's own silence, and says nothing about the learner.
LONGEST_GAP_S = 2.0


class LearnerSigns:
    """Adds up the time in which the lease was not renewed although Redis answered."""

    def __init__(self, now_s: float) -> None:
        """`now_s`, here and below, is in seconds of a monotonic clock."""
        self.away_s = 0.0  # without a renewal
        self.looked_at_s = now_s  # when Redis last answered
        self._renewed_at = ""

    def note(self, renewed_at: str | None, now_s: float) -> None:
        """Takes what Redis told: another text than before is a renewal, whatever it says.

        None: Redis answered, and has no such run.
        """
        gap_s = min(now_s - self.looked_at_s, LONGEST_GAP_S)
        self.looked_at_s = now_s
        if renewed_at is not None and renewed_at != self._renewed_at:
            self._renewed_at, self.away_s = renewed_at, 0.0
        else:
            self.away_s += gap_s
