"""A run directory: what is written into it and how it is read back, without network or server."""
