"""The causes for which columns are refused, in words."""

from collections.abc import Mapping

# The figures that count columns refused for one cause, alone or with their block, and the cause in
# words.
REFUSALS = {
    "refused_observations": "observations are not finite or out of range",
    "refused_rewards": "rewards are not finite or beyond 1e9",
    "refused_actions": "actions are not finite or out of range",
    "refused_log_probs": "log-probabilities are not finite or out of range",
    "refused_memory": "memories of the network are not finite or out of range",
    "refused_flags": "discounts or flags are out of range",
    "refused_tasks": "numbers of tasks are out of range",
    "refused_episodes": "lengths or columns of episodes are out of range",
    "refused_weights": "blocks are of weights that are not made yet",
    "refused_updates": "no finite update can be made of blocks",
    "refused_malformed": "blocks are damaged",
    "refused_version": "blocks are of another release",
    "refused_spec": "blocks are of another environment or network",
    "refused_schema": "blocks have other shapes",
    "refused_duplicate": "blocks came twice",
}


def why_refused(figures: Mapping[str, float]) -> str:
    """The most frequent cause among the counts `refused_...` of a record; empty without any."""
    count, words = max((figures.get(name, 0), words) for name, words in REFUSALS.items())
    return words if count > 0 else ""


def in_words(figures: Mapping[str, float], most_of: str = "") -> str:
    """What a record says of columns that were refused or too old; empty when there were none.

    `most_of` is the actor whose columns were refused most often, if that is known.
    """
    said = []
    if why := why_refused(figures):
        share = _percent(figures.get("refused_share"))
        whose = f" (most of them of {most_of})" if most_of else ""
        columns = figures.get("columns_refused", 0)
        said.append(f"{columns:,.0f} columns refused{share}: {why}{whose}")
    if stale := figures.get("columns_stale", 0):
        share = _percent(figures.get("stale_share"))
        said.append(f"{stale:,.0f} columns too old{share}: see --max-policy-lag")
    return "; ".join(said)


def _percent(share: float | None) -> str:
    """The share since the last record; nothing when no column came since."""
    return "" if share is None else f", {100 * share:.1f} % of the last ones"
