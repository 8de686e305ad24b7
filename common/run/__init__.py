"""What a run is: its settings, presets and spec. Standard library alone: programs start fast."""
