"""The parts of bench_transport.py: each measures something, and has its targets."""
