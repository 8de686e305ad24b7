"""What there is to say of a figure of a run: its name, unit and meaning, and where it shows up."""

from typing import Literal, NamedTuple

# The unit of shares, which are shown as percentages.
SHARE = "0 to 1"

# Names of figures that begin so end with a word that an environment chose.
EPISODE_INFO = "episode_info:"
# Those that begin so end with the name of a task.
TASK_RETURN, TASK_SCORE, TASK_FRAMES = "task_return:", "task_score:", "task_frames:"

# How several values become one: those of the updates between two records, and those of records
# that share a point of a curve.
Reduction = Literal["mean", "min", "max"]


class Figure(NamedTuple):
    """One figure; a star at the end of its name stands for a number, or for the user's word."""

    name: str
    unit: str  # empty for a plain number, and for a count that its name explains
    meaning: str
    reduction: Reduction = "mean"
    in_tensorboard: bool = True
    in_status: bool = False  # the learner leaves its last value in Redis, for impala-status
    chart: str = ""  # the slug of a chart of the report, which draws it as one more line
    group: str = ""  # heads a table of docs/metrics.md, and a category of TensorBoard's layout

    @property
    def label(self) -> str:
        """The name in words, without the suffix that gives the unit."""
        name = self.name
        for suffix in ("_share", "_per_s", "_s"):
            name = name.removesuffix(suffix)
        return name.replace("_", " ")


def alike(
    reductions: dict[str, Reduction], unit: str, meaning: str, in_status: bool = False
) -> list[Figure]:
    """Figures that differ in nothing but the reduction; they share a row and a chart."""
    return [
        Figure(name, unit, meaning, reduction, in_status=in_status)
        for name, reduction in reductions.items()
    ]
