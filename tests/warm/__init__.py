"""Programs that start warm: forked from a process that has already imported what they import."""
