"""The Redis server, whatever the run: reach and judge it. Only this room imports redis."""
