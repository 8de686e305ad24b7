"""What a reply to each command looks like, and how large it may be: all else is none of Redis."""

from collections.abc import Callable, Sequence
from typing import Any, Final

Command = Sequence[Any]

# The longest message of a block or of weights, whatever a server takes. No run has longer ones.
MOST_MESSAGE_BYTES: Final = 512 * 1024 * 1024
# The most of a reply to a command that asks for no messages.
MOST_BYTES: Final = 16 * 1024 * 1024
MOST_ITEMS: Final = 262_144
# The others have these bounds.
ASK_FOR_MESSAGES: Final = ("LRANGE", "HMGET", "EXEC")
# Stands for each command within a transaction.
QUEUED: Final = ("QUEUED",)


def most(command: Command) -> tuple[int, int]:
    """The most bytes of text that a reply to the command may have, and the most items in lists."""
    match command[0]:
        case "LRANGE" if type(command[3]) is int and command[3] >= 0:
            items = max(0, command[3] - int(command[2]) + 1)
            return MOST_BYTES + items * MOST_MESSAGE_BYTES, items
        case "LRANGE":
            return MOST_BYTES + MOST_ITEMS * MOST_MESSAGE_BYTES, MOST_ITEMS
        case "HMGET":
            return MOST_BYTES + MOST_MESSAGE_BYTES, len(command) - 2
        case "EXEC" if len(command) > 1:
            asking = [most(each) for each in command[1] if each[0] in ASK_FOR_MESSAGES]
            return (
                MOST_BYTES + sum(size for size, _ in asking),
                MOST_ITEMS + sum(items for _, items in asking),
            )
    return MOST_BYTES, MOST_ITEMS


def fits(command: Command, reply: Any) -> bool:
    """Whether a reply may be one to the command; an error is one to each."""
    if isinstance(reply, Exception):
        return True
    shape = _SHAPES.get(command[0])
    return shape is None or shape(command, reply)


def _text(command: Command, reply: Any) -> bool:
    return type(reply) is bytes


def _text_or_none(command: Command, reply: Any) -> bool:
    return reply is None or type(reply) is bytes


def _number(command: Command, reply: Any) -> bool:
    return type(reply) is int


def _texts(command: Command, reply: Any) -> bool:
    return type(reply) is list and all(type(item) is bytes for item in reply)


def _pairs(command: Command, reply: Any) -> bool:
    return _texts(command, reply) and len(reply) % 2 == 0


def _fields(command: Command, reply: Any) -> bool:
    return (
        type(reply) is list
        and len(reply) == len(command) - 2
        and all(item is None or type(item) is bytes for item in reply)
    )


def _page(command: Command, reply: Any) -> bool:
    """What SCAN replies: where to go on, and keys."""
    return (
        type(reply) is list
        and len(reply) == 2
        and is_number(reply[0])
        and _texts(command, reply[1])
    )


def _time(command: Command, reply: Any) -> bool:
    return _texts(command, reply) and len(reply) == 2 and all(map(is_number, reply))


def _place(command: Command, reply: Any) -> bool:
    """What a sentinel replies: host and port of a master, or that it knows none."""
    return reply is None or (_texts(command, reply) and len(reply) == 2 and is_number(reply[1]))


def _queued(command: Command, reply: Any) -> bool:
    return bool(reply == b"QUEUED")


def _executed(command: Command, reply: Any) -> bool:
    """What EXEC replies: nothing if a watched key changed, else a reply to each command."""
    if len(command) == 1 or reply is None:
        return reply is None or type(reply) is list
    return (
        type(reply) is list and len(reply) == len(command[1]) and all(map(fits, command[1], reply))
    )


def _of_a_function(command: Command, reply: Any) -> bool:
    """Whatever a function of ours replies; who has called it knows more."""
    if type(reply) is list:
        return all(_of_a_function(command, item) for item in reply)
    return reply is None or type(reply) in (int, bytes)


def _listing(command: Command, reply: Any) -> bool:
    """A list of whatever: who has asked for it looks at each item."""
    return type(reply) is list and _of_a_function(command, reply)


def is_number(text: Any) -> bool:
    """Whether a text of a server is a whole number of 64 bits without a sign, as cursors are."""
    return type(text) is bytes and text.isdigit() and len(text) <= 20 and int(text) < 2**64


_Shape = Callable[[Command, Any], bool]
_SHAPES: dict[str, _Shape] = {
    **dict.fromkeys(("GET", "HGET"), _text_or_none),
    **dict.fromkeys(("INFO", "MULTI", "WATCH", "UNWATCH", "FUNCTION LOAD"), _text),
    **dict.fromkeys(("LLEN", "HLEN", "EXISTS", "UNLINK", "PTTL", "PEXPIRE"), _number),
    **dict.fromkeys(("HSET", "HINCRBY", "HSTRLEN", "RPUSH", "RPUSHX"), _number),
    **dict.fromkeys(("HGETALL", "CONFIG GET", "SENTINEL MASTER"), _pairs),
    **dict.fromkeys(("FCALL", "FCALL_RO"), _of_a_function),
    "FUNCTION LIST": _listing,
    "LRANGE": _texts,
    "HMGET": _fields,
    "SCAN": _page,
    "TIME": _time,
    "QUEUED": _queued,
    "EXEC": _executed,
    "SENTINEL GET-MASTER-ADDR-BY-NAME": _place,
}
