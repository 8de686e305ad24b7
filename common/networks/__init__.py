"""The networks, as torch modules, a user's own among them. Pure but for what that one does."""
