"""Load on a server: processes that play actors and learners, and storms of pushes."""
