"""The parts of bench_transport.py: each measures something and has targets of its own."""
