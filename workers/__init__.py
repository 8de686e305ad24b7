"""The programs, one file each. They never import one another: they meet in Redis."""
