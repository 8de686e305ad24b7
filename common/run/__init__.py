"""What a run is: its settings, presets and spec. Standard library alone, so that every program starts fast."""
