"""A server's address as text: its password, what messages may show of it, redis-cli's options."""

import re
import shlex
from collections.abc import Mapping
from urllib.parse import parse_qs, quote, unquote, urlsplit


def has_password(url: str) -> bool:
    """Whether an address holds a password, or something that may be meant as one."""
    before, _, _ = url.partition("://")[2 if "://" in url else 0].rpartition("@")
    return bool(before.partition(":")[2]) or bool(re.search(r"[?&#]password=", url, re.IGNORECASE))


def with_password(url: str, password: str) -> str:
    """The address with a password in it; a text that is no address is returned unchanged."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    before, slash, after = rest.partition("/")
    user, _, place = before.rpartition("@")
    return f"{scheme}://{user.rstrip(':')}:{quote(password, safe='')}@{place}{slash}{after}"


def without_password(url: str) -> str:
    """The place that an address points to, for logs and messages: no secrets, no options."""
    scheme, separator, rest = url.partition("://")
    if not separator or not scheme.isalpha():
        return "the given address"
    before, *after = re.split(r"[?#]", rest, maxsplit=1)
    if after and "@" in after[0]:
        return f"{scheme}://***"  # any part may be the password
    _, at, place = before.rpartition("@")  # the last one: a password may hold anything
    return f"{scheme}://{'***@' if at else ''}{place}"


def cli_command(url: str, *, login: bool = True) -> str:
    """The redis-cli command that reaches the server at `url`; it never holds the password.

    With `login` the command names the address's user and has redis-cli ask for the password.
    """
    try:
        parts = urlsplit(url)
        host, port, database = parts.hostname, parts.port, parts.path.strip("/")
    except ValueError:
        return "redis-cli"
    options_of_url = {name: values[0] for name, values in parse_qs(parts.query).items()}
    user = unquote(parts.username or "") or options_of_url.get("username")
    login_options = [f"--user {shlex.quote(user)}"] if user and login else []
    login_options += ["--askpass"] if has_password(url) and login else []
    if parts.scheme == "unix":
        return " ".join(["redis-cli", f"-s {shlex.quote(unquote(parts.path))}", *login_options])
    options = [
        f"-h {host}" if host not in (None, "localhost", "127.0.0.1") else "",
        f"-p {port}" if port not in (None, 6379) else "",
        f"-n {database}" if database not in ("", "0") else "",
        *(["--tls", *_cli_tls_files(options_of_url)] if parts.scheme == "rediss" else []),
        *login_options,
    ]
    return " ".join(["redis-cli", *filter(None, options)])


def _cli_tls_files(options_of_url: Mapping[str, str]) -> list[str]:
    names = {"--cacert": "ssl_ca_certs", "--cert": "ssl_certfile", "--key": "ssl_keyfile"}
    return [
        f"{option} {shlex.quote(options_of_url[name])}"
        for option, name in names.items()
        if name in options_of_url
    ]
