"""How a learner that torchrun has started gets what impala-train hands to it (see `handover`)."""

import os

# Names impala-train's socket, for the learners that torchrun starts and no other program.
VARIABLE = "IMPALA_HANDOVER_SOCKET"
# impala-train looks many times a second; this is for a machine that stands still for a while.
ANSWER_WITHIN_S = 60.0
MOST_BYTES, MOST_DESCRIPTORS = 1000, 8


def take() -> None:
    """Asks impala-train, if this program is a learner that it has let torchrun start; once.

    Raises ValueError: nobody answers there.
    """
    path = os.environ.get(VARIABLE)
    if path is None:
        return
    import socket  # late: hardly any program needs it here

    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(ANSWER_WITHIN_S)
            connection.connect(path)
            connection.sendall(os.environ.get("RANK", "none").encode())
            names, descriptors, _, _ = socket.recv_fds(connection, MOST_BYTES, MOST_DESCRIPTORS)
    except OSError as error:
        raise ValueError("nobody answers there") from error
    if not descriptors:
        raise ValueError("it is not for this program")
    del os.environ[VARIABLE]  # the programs that this one starts do not have it
    for name, descriptor in zip(names.decode().split(), descriptors, strict=True):
        os.set_inheritable(descriptor, False)
        os.environ[name] = str(descriptor)
