"""A plain network in numpy, equal to the torch one: forward, loss, gradient, step. Pure."""
