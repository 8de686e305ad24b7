"""Games by name: our own environments, and those of other packages as we play them."""
