"""The Redis server, whatever the run: reach, judge or start it. Only this room imports redis."""
