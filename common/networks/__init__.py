"""The networks, as torch modules. Pure: no file, no socket, no clock."""
