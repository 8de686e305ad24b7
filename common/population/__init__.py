"""Population-based training: runs that compare themselves, and copy what is better."""
