"""A block of trajectories, and its bytes on the wire. The only room that imports msgpack."""
