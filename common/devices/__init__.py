"""Where torch computes: a CPU or a GPU, its memory, its clock, its order of work."""
