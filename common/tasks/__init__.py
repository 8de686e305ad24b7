"""The tasks of a run: what several environments have that one network learns together."""
