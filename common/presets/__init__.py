"""Settings that solve a task, by name. Standard library alone: programs start fast."""
