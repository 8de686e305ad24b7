"""When an empty list is asked again, so that a block is found soon after it came."""

FIRST_PAUSE_S, LAST_PAUSE_S = 0.0005, 0.008
# The usual wait is a mean over about so many.
MEAN_OVER = 8
# A longer wait counts as this one: whoever waits so long asks as seldom as it may anyway, and an
# hour without actors would be in the mean for the next hundred blocks.
LONGEST_S = 8 * LAST_PAUSE_S


class Rhythm:
    """Pauses by how long blocks have been waited for lately.

    Asking too early costs the learner's main thread the interpreter, and asking too late lets the
    list grow full: of a list of one block, what comes next would drop the first.
    """

    def __init__(self) -> None:
        self._usual_s = 0.0

    def pause_s(self, waited_s: float) -> float:
        """The next pause in seconds, when this block was waited for `waited_s` already.

        The first takes three quarters of the usual wait, later ones an eighth, and after twice the
        usual wait each takes longer than the one before.
        """
        if waited_s < 0.75 * self._usual_s:
            pause_s = 0.75 * self._usual_s - waited_s
        elif waited_s < 2 * self._usual_s:
            pause_s = self._usual_s / 8
        else:
            pause_s = waited_s / 4
        return min(max(FIRST_PAUSE_S, pause_s), LAST_PAUSE_S)

    def note(self, waited_s: float) -> None:
        """Notes how long a block was waited for in all."""
        self._usual_s += (min(waited_s, LONGEST_S) - self._usual_s) / MEAN_OVER
