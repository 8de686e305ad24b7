"""A run directory: what is written into it, and how it is read back. It knows no network and no server."""
