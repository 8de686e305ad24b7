"""What the benchmarks share; the commands are the files one folder up."""
