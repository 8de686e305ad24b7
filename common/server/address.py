"""A server's address as text: taken apart, what messages may show of it, redis-cli's options."""

import ipaddress
import re
import shlex
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, quote, unquote

FORMS = (
    "redis://host:port/0, rediss://host:port/0, unix:///path/to/redis.sock or "
    "redis+sentinel://host:port,host:port/name"
)
DEFAULT_PORT, DEFAULT_SENTINEL_PORT = 6379, 26379

_ALIASES = {
    "valkey": "redis",
    "valkeys": "rediss",
    "valkey+sentinel": "redis+sentinel",
    "valkeys+sentinel": "rediss+sentinel",
}
_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_OPTIONS = ("db", "username", "password")
_SENTINEL_OPTIONS = ("sentinel_username", "sentinel_password")
_TLS_OPTIONS = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_password", "ssl_min_version")
_ENCODE = (
    "a special character in it must be percent-encoded, in a user name or password above all (% is "
    "%25, / %2F, ? %3F, # %23, @ %40, : %3A, [ %5B); or keep the password in a file and name that "
    "by --redis-password-file"
)


class Place(NamedTuple):
    """Where a server or a sentinel listens."""

    host: str  # without the brackets of an IPv6 address
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether it is on this machine for certain: another name may lead anywhere."""
        try:
            return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Address(NamedTuple):
    """An address taken apart. It holds the secrets: only `without_password` is for messages."""

    text: str  # as it was given, with the scheme and the blanks cleaned
    encrypted: bool
    login: str  # "user:password@" as it was written, "" for none
    places: tuple[Place, ...]  # the server or, with `master`, the sentinels; none for a socket
    path: str  # of a Unix socket, as it was written, else ""
    master: str  # the name by which the sentinels know the server, "" without sentinels
    database: int
    options: Mapping[str, str]  # those of the query, decoded

    @property
    def user(self) -> str:
        """The user's name, "" for the server's default one."""
        named = unquote(self.login.rstrip("@").partition(":")[0])
        return named or self.options.get("username", "")

    def server_url(self, place: Place | None = None) -> str:
        """The address of one server, at `place` or where this one says, with the same login."""
        scheme = "rediss" if self.encrypted else "redis"
        where = f"{scheme}://{self.login}{place or (*self.places, '')[0]}/{self.database}"
        if self.path and not place:
            where = f"unix://{self.login}{self.path}"
        left_out = _SENTINEL_OPTIONS if self.path and not place else (*_SENTINEL_OPTIONS, "db")
        kept = {name: value for name, value in self.options.items() if name not in left_out}
        return where + "?" * bool(kept) + "&".join(f"{n}={quote(v)}" for n, v in kept.items())


def parse(url: str) -> Address:
    """Takes an address apart. Raises ValueError with a sentence that holds no secret."""
    text = _cleaned(url)
    scheme, separator, rest = text.partition("://")
    if not separator or scheme not in _SCHEMES:
        raise ValueError("it begins with none of these schemes")
    before, _, query = rest.partition("?")
    if "#" in rest or "@" in query:
        raise ValueError(_ENCODE)
    with_sentinels, encrypted = scheme.endswith("+sentinel"), scheme.startswith("rediss")
    options = _options(query, encrypted, with_sentinels)
    if scheme == "unix":
        login, path = _socket(before)
        return Address(text, False, login, (), path, "", _number(options.get("db", "")), options)
    login, at, place = before.rpartition("@")
    hosts, _, path = place.partition("/")
    if re.search(r"[/\[\]\s]" + "|@" * with_sentinels, login):
        raise ValueError(_ENCODE)
    name, database = "", path
    if with_sentinels:
        name, _, database = path.partition("/")
        if not name:
            raise ValueError("it lacks the name by which the sentinels know the server")
    elif "," in hosts:
        raise ValueError(
            "it names several servers; of a Redis Cluster any one will do, and several sentinels "
            "stand in redis+sentinel://"
        )
    if re.search("^,|,,|,$", hosts):
        raise ValueError("there is a comma too many in its list of hosts")
    port = DEFAULT_SENTINEL_PORT if with_sentinels else DEFAULT_PORT
    places = tuple(_place(text, port) for text in hosts.split(","))
    number = _number(options.get("db", database))
    if database.strip("/") and number != _number(database):
        raise ValueError("it names two databases, one behind the / and another by db")
    return Address(text, encrypted, login + at, places, "", unquote(name), number, options)


def _cleaned(url: str) -> str:
    """The address without blanks around it, its scheme in one of the forms that `FORMS` shows."""
    scheme, separator, rest = url.strip().partition("://")
    return _ALIASES.get(scheme.lower(), scheme.lower()) + separator + rest if separator else url


def _options(query: str, encrypted: bool, with_sentinels: bool) -> dict[str, str]:
    """The options of the query, each given once, all known; `tls.objection` judges those of TLS."""
    found: dict[str, str] = {}
    known = (
        *_OPTIONS,
        *(_TLS_OPTIONS if encrypted else ()),
        *(_SENTINEL_OPTIONS if with_sentinels else ()),
    )
    for name, value in parse_qsl(query, keep_blank_values=True):
        is_of_tls = re.fullmatch(r"ssl_\w{1,36}", name)
        shown = repr(name) if re.fullmatch(r"\w{1,40}", name, re.ASCII) else "of that name"
        if is_of_tls and not encrypted:
            raise ValueError(f"the option {name} is one of rediss://, where TLS is spoken")
        if name not in known and not is_of_tls:
            raise ValueError(f"there is no option {shown} here; there are {', '.join(known)}")
        if name in found:
            raise ValueError(f"it has the option {shown} twice")
        found[name] = value
    return found


def _socket(before: str) -> tuple[str, str]:
    """The login and the path of a Unix socket."""
    login, path = ("", before) if before.startswith("/") else before.partition("@")[::2]
    if "/" in login and path:
        raise ValueError(_ENCODE)
    if not path.startswith("/"):
        raise ValueError("the path of its socket must begin with /, after unix://")
    return login and f"{login}@", path


def _place(text: str, default_port: int) -> Place:
    found = re.fullmatch(r"(?:\[([^\[\]@/]+)\]|([^:\[\]\s]*))(?::([0-9]{1,5}))?", text)
    if found is None or not 0 < int(found[3] or default_port) <= 65535:
        raise ValueError(
            "a host and a port of 1 to 65535 were expected, as in host:6379 or [::1]:6379"
        )
    host = unquote(found[1] or found[2] or "localhost")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise ValueError("its host can be no name in a network") from error
    return Place(host, int(found[3] or default_port))


def _number(text: str) -> int:
    """The number of a database; 0 if none is given."""
    found = re.fullmatch(r"([0-9]{0,9})/?", text)
    if found is None:
        raise ValueError("its database must be a number, as in /0")
    return int(found[1] or 0)


def has_password(url: str) -> bool:
    """Whether an address holds the server's password, or something that may be meant as one."""
    before, _, _ = url.partition("://")[2 if "://" in url else 0].rpartition("@")
    named = re.search(r"[?&#]password=", unquote(url), re.IGNORECASE)
    return bool(before.partition(":")[2]) or named is not None


def holds_secret(url: str) -> bool:
    """Whether an address holds any password, such as a key's, in whatever spelling."""
    decoded = unquote(url)
    login = decoded.partition("://")[2].rpartition("@")[0] if "://" in decoded else ""
    has_login = bool(login.partition(":")[2])
    return has_password(url) or has_login or re.search(r"password\s*=", decoded, re.I) is not None


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
    scheme, separator, rest = url.strip().partition("://")
    if not re.fullmatch(r"[A-Za-z][A-Za-z+]*", scheme):
        scheme, separator, rest = "", "", url.strip()
    before, *after = re.split(r"[?#]", rest, maxsplit=1)
    if after and "@" in after[0]:
        return f"{scheme}{separator}***"  # any part may be the password
    _, at, place = before.rpartition("@")  # the last one: a password may hold anything
    return f"{scheme}{separator}{'***@' if at else ''}{place}"


def cli_command(url: str, *, login: bool = True) -> str:
    """The redis-cli command that reaches the server at `url`; it never holds the password.

    With `login` the command names the address's user and has redis-cli ask for the password. Where
    sentinels know the server, they are asked for it whenever the command is run.
    """
    try:
        address = parse(url)
    except ValueError:
        return "redis-cli"
    login_options = [f"--user {shlex.quote(address.user)}"] if address.user and login else []
    login_options += ["--askpass"] if has_password(url) and login else []
    tls = ["--tls", *_cli_tls_files(address.options)] if address.encrypted else []
    if address.path:
        where = [f"-s {shlex.quote(unquote(address.path))}"]
    elif address.master:
        where = [f"$({_asking_sentinels(address, tls)})"]
    else:
        where = _cli_place(address.places[0])
    options = [*where, f"-n {address.database}" if address.database else "", *tls, *login_options]
    return " ".join(["redis-cli", *filter(None, options)])


def _asking_sentinels(address: Address, tls: list[str]) -> str:
    """A command that prints host and port of the present master as options of redis-cli."""
    first = " ".join(["redis-cli", *_cli_place(address.places[0]), *tls])
    question = f"SENTINEL get-master-addr-by-name {shlex.quote(address.master)}"
    return f"{first} {question} | xargs printf -- '-h %s -p %s'"


def _cli_place(place: Place) -> list[str]:
    return [
        *(
            [f"-h {shlex.quote(place.host)}"]
            if place.host not in ("localhost", "127.0.0.1")
            else []
        ),
        *([f"-p {place.port}"] if place.port != DEFAULT_PORT else []),
    ]


def _cli_tls_files(options: Mapping[str, str]) -> list[str]:
    names = {"--cacert": "ssl_ca_certs", "--cert": "ssl_certfile", "--key": "ssl_keyfile"}
    return [
        f"{option} {shlex.quote(options[name])}"
        for option, name in names.items()
        if name in options
    ]
