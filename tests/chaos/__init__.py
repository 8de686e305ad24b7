"""What breaks things on purpose: a server to kill, a network to cut, and the run that does both."""
