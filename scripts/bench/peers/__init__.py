"""The libraries that bench_peers.py measures, each driven in an environment of its own."""
