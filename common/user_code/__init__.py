"""Code of the user's own: who names it, where it lies, and what goes wrong in it."""
