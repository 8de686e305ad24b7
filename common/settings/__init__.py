"""How a setting is declared, and which forms values have; the settings themselves are in run."""
