"""The parts of scripts/gpu_kit.py, each a program of its own."""
