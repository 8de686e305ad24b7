"""A trained policy for whoever wants its actions: read from disk or a live run, and played."""
