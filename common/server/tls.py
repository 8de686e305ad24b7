"""TLS to the server: what an address may ask for, and why it fails, in words.

If only one of server and client speaks TLS, neither says so: one hangs up, or both wait. And a
server that misses a client's certificate may be gone before the client has read why. Then one more
connection is made, only to find out (`diagnosis`).
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Iterable, Mapping
from typing import Any

PROBE_TIMEOUT_S = 1.0
LEAST_VERSION = ssl.TLSVersion.TLSv1_2

_CHECKS_OFF = (
    ("ssl_cert_reqs", lambda value: value != "required"),
    ("ssl_check_hostname", lambda value: not value),
    ("ssl_min_version", lambda value: value < LEAST_VERSION),
)
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
# What an address may say of TLS. Everything else that redis-py takes could lower what is checked,
# such as the ciphers: some need no certificate.
_TAKEN = (*_FILES, "ssl_password", *(name for name, _ in _CHECKS_OFF))


def objection_to_names(names: Iterable[str]) -> str | None:
    """What is wrong with the names of an address's options; None if nothing is."""
    odd = next((name for name in names if name.startswith("ssl_") and name not in _TAKEN), None)
    return odd and (
        f"its option {odd} changes what TLS checks, and no address may do that; an address may "
        f"have {', '.join(_TAKEN)}"
    )


def objection(options: Mapping[str, Any]) -> str | None:
    """What is wrong with an address's TLS options, by redis-py's names; None if nothing is."""
    for name, is_off in _CHECKS_OFF:
        if name in options and is_off(options[name]):
            return (
                f"it turns a check of TLS off ({name}), and unchecked TLS keeps nobody out; name "
                "the certificate to trust instead: ?ssl_ca_certs=FILE"
            )
    for name in _FILES:
        if name in options and not os.access(options[name], os.R_OK):
            return f"its {name}, {options[name]}, cannot be read"
    return None


def is_refusal(error: BaseException) -> bool:
    """Whether TLS failed for a lasting reason; a connection that breaks may work again."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return not isinstance(cause, ssl.SSLEOFError | ssl.SSLZeroReturnError)
        cause = cause.__cause__ or cause.__context__
    return False


def diagnosis(options: Mapping[str, Any], encrypted: bool) -> str | None:
    """Why a server hangs up or stays silent, if TLS is the reason; else None.

    Args:
      options: those of the address, by redis-py's names.
      encrypted: whether it is a rediss:// address.
    """
    if "path" in options:
        return None  # a Unix socket
    place = (str(options.get("host", "localhost")), int(options.get("port", 6379)))
    if not encrypted:
        if _greeting(place, options, listen=False) is None:
            return None
        return "the server speaks TLS there; write rediss:// for redis://"
    if _answers_in_clear(place):
        return (
            "the server does not speak TLS there, or somebody in between answers for it: give it "
            "a tls-port and look who answers, before you send a password or a run without TLS"
        )
    return _greeting(place, options, listen=True) or None


def _answers_in_clear(place: tuple[str, int]) -> bool:
    try:
        with socket.create_connection(place, PROBE_TIMEOUT_S) as plain:
            plain.sendall(b"PING\r\n")
            return plain.recv(1) in (b"+", b"-")
    except OSError:
        return False


def _greeting(place: tuple[str, int], options: Mapping[str, Any], listen: bool) -> str | None:
    """A TLS server's objection, "" if it has none, None if it is no TLS server.

    With `listen` it is also heard after the greeting, where it refuses a client's certificate.
    Nothing is sent, so the server's certificate need not be checked.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        if "ssl_certfile" in options:
            # Never None for the password: OpenSSL would ask for one on the terminal.
            password = options.get("ssl_password") or ""
            context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), password)
        with (
            socket.create_connection(place, PROBE_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=place[0]) as secure,
        ):
            return _objection_of(secure) if listen else ""
    except ssl.SSLError as error:
        return str(error) if "ALERT" in (error.reason or "") else None
    except OSError:
        return None


def _objection_of(secure: ssl.SSLSocket) -> str:
    # A server without objections waits for our first command.
    with contextlib.suppress(TimeoutError):
        secure.recv(1)
    return ""
