"""The Redis server, whatever the run: reach it, judge it, start one. The only room that imports redis."""
