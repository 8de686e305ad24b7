"""A plain network in numpy, equal to the one that `common.networks` makes in torch. Pure."""
