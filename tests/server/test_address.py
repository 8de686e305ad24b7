"""Addresses of servers: what is taken, what is refused with the reason, and what is shown."""

import subprocess

import pytest
from click.testing import CliRunner

from chaos.servers import OpenServer
from impala_redis.common.errors import RedisUnreachable
from impala_redis.common.server.address import (
    Place,
    cli_command,
    has_password,
    holds_secret,
    parse,
    with_password,
    without_password,
)
from impala_redis.common.server.connection import connect, translated
from impala_redis.workers.status import main as status_command


def refusal(url: str) -> str:
    """What is said of an address that is none."""
    with pytest.raises(RedisUnreachable) as refused:
        connect(url, "test")
    return str(refused.value)


# Secrets.


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/0?%70assword=hush",
        "redis://h/0?db=1&%50ASSWOR%44=hush",
        "redis://h/0%3Fpassword=hush",
        "redis://h/0?password%3Dhush",
        "redis://alice%3Ahush@h/0",
        "redis+sentinel://h/name?sentinel_%70assword=hush",
        "rediss://h/0?%73sl_p%61ssword=hush",
        "unix:///no.sock?password%20=hush",
    ],
)
def test_a_password_is_noticed_in_any_spelling(url: str) -> None:
    # when
    done = CliRunner().invoke(status_command, ["--run", "x", "--redis-url", url])

    # then
    assert holds_secret(url)
    assert done.exit_code == 2
    assert "holds a password" in done.output
    assert "hush" not in done.output


@pytest.mark.parametrize(
    "url",
    [
        "redis://alice@h/0?db=1",
        "rediss://h/0?ssl_ca_certs=/a/passwords/ca.crt",
        "h:6379",
        "",
        "[::1]",
    ],
)
def test_no_password_is_seen_where_there_is_none(url: str) -> None:
    assert not holds_secret(url)


def test_an_option_stands_once() -> None:
    assert "the option 'db' twice" in refusal("redis://127.0.0.1:1/0?db=1&%64b=2")


# Taken.


@pytest.mark.parametrize(
    "form",
    [
        "valkey://127.0.0.1:{port}/0",
        "VALKEY://127.0.0.1:{port}",
        "REDIS://127.0.0.1:{port}/0",
        "Redis://127.0.0.1:{port}/",
        " redis://127.0.0.1:{port}/0",
        "\tredis://127.0.0.1:{port}/0 \n",
        "redis://127.0.0.1:{port}?db=3",
        "redis://127.0.0.1:{port}/3/",
        "redis://default@127.0.0.1:{port}/0",
        "redis://127.0.0.1:{port}/0?",
    ],
)
def test_an_address_is_taken_as_people_write_it(redis_server: OpenServer, form: str) -> None:
    # given
    client = connect(form.format(port=redis_server.port), "test")

    # then
    with translated(client):
        assert client.ping()
        assert client.connection_pool.connection_kwargs["db"] == (3 if "3" in form[-5:] else 0)
    client.close()


@pytest.mark.parametrize(
    ("url", "encrypted"),
    [
        ("valkeys://host/0", True),
        ("REDISS://host/0", True),
        ("valkey+sentinel://host/name", False),
        ("rediss+sentinel://host/name", True),
        ("redis://host/0", False),
    ],
)
def test_an_s_means_tls_in_every_name_of_a_scheme(url: str, encrypted: bool) -> None:
    assert parse(url).encrypted is encrypted


def test_an_address_is_taken_apart() -> None:
    # given one of sentinels with all that it may hold
    found = parse(
        "redis+sentinel://al%69ce:a%2Fb@one,[::1]:7,three:26380/my%20name/2?sentinel_password=hush"
    )

    # then
    assert found.places == (Place("one", 26379), Place("::1", 7), Place("three", 26380))
    assert (found.master, found.database, found.path) == ("my name", 2, "")
    assert found.options == {"sentinel_password": "hush"}

    # and the server to which they lead has the login, the database, and nothing of theirs
    assert found.server_url(Place("::2", 8)) == "redis://al%69ce:a%2Fb@[::2]:8/2"


@pytest.mark.parametrize(
    ("url", "user"),
    [
        ("redis://al%69ce:pw@h/0", "alice"),
        ("unix:///run/a.sock?username=alice&password=pw", "alice"),
        ("redis://:pw@h/0", ""),
        ("redis://h/0", ""),
    ],
)
def test_the_user_is_named_as_the_server_knows_it(url: str, user: str) -> None:
    assert parse(url).user == user


@pytest.mark.parametrize(
    ("url", "there"),
    [
        ("redis://u:p@one:1/3", "redis://u:p@two:2/3"),
        ("rediss://u:p@one:1/0?ssl_ca_certs=/a%20b", "rediss://u:p@two:2/0?ssl_ca_certs=/a%20b"),
        ("unix:///run/a.sock?db=1&password=p", "redis://two:2/1?password=p"),
        ("unix://u:p@/run/a.sock", "redis://u:p@two:2/0"),
    ],
)
def test_login_tls_and_database_go_along_to_another_server(url: str, there: str) -> None:
    assert parse(url).server_url(Place("two", 2)) == there


# Refused.


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ("protocol=3", "protocol"),
        ("foo=bar", "foo"),
        ("max_connections=1", "max_connections"),
        ("decode_responses=true", "decode_responses"),
        ("encoding=latin-1", "encoding"),
        ("db=1&retry_on_timeout=yes", "retry_on_timeout"),
        ("health_check_interval=30", "health_check_interval"),
        ("socket_timeout=60", "socket_timeout"),
        ("parser_class=x", "parser_class"),
        ("connection_class=x", "connection_class"),
        ("sentinel_password=hush", "sentinel_password"),
    ],
)
def test_another_option_is_refused_by_its_name(options: str, name: str) -> None:
    said = refusal(f"redis://127.0.0.1:1/0?{options}")
    assert f"no option '{name}'" in said
    assert "db, username, password" in said
    assert "hush" not in said


def test_an_option_of_tls_without_tls_leads_to_the_other_scheme() -> None:
    assert "ssl_ca_certs is one of rediss://" in refusal("redis://h/0?ssl_ca_certs=/a")


@pytest.mark.parametrize("path", ["abc", "0x1", "-1", "1/2", "%31", "٣", "1e3"])
def test_a_database_is_a_number(path: str) -> None:
    assert "must be a number" in refusal(f"redis://127.0.0.1:1/{path}")


@pytest.mark.parametrize("number", [16, 99, 123456])
def test_a_database_that_is_not_there_is_one_sentence(
    redis_server: OpenServer, number: int
) -> None:
    # given
    client = connect(f"redis://127.0.0.1:{redis_server.port}/{number}", "test")

    # when, then
    with pytest.raises(Exception, match="has no such database") as refused, translated(client):
        client.ping()
    assert getattr(refused.value, "exit_code", None) == 6
    client.close()


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hush/word@127.0.0.1:1/0",
        "redis://:hush#word@127.0.0.1:1/0",
        "redis://:hush?word@127.0.0.1:1/0",
        "redis://:hush[word@127.0.0.1:1/0",
        "redis://:hush word@127.0.0.1:1/0",
        "rediss://alice:hush?a=b&c@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=hush@word",
        "redis://127.0.0.1:1/0#hush",
        "unix://:hush/word@/run/a.sock",
        "redis+sentinel://:hush/word@one,two/name",
        "redis+sentinel://:hush@word@one,two/name",
        "redis+sentinel://a:hush@one:1,a:hush@two:2/name",
    ],
)
def test_a_special_character_in_a_password_must_be_encoded(url: str) -> None:
    said = refusal(url)
    assert "percent-encoded" in said
    assert "--redis-password-file" in said
    assert "hush" not in said


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "'' is not a Redis URL"),
        ("localhost:6379", "'localhost:6379' is not a Redis URL"),
        ("alice:hush@localhost:6379", "'***@localhost:6379' is not a Redis URL"),
        ("localhost:6379?password=hush", "'localhost:6379' is not a Redis URL"),
        ("localhost:6379?password=hush@x", "'***' is not a Redis URL"),
        ("http://alice:hush@localhost:6379/0", "'http://***@localhost:6379/0' is not"),
        ("sentinel://localhost:26379/name", "redis+sentinel://host:port"),
        ("redis://a:1,b:2/0", "of a Redis Cluster any one will do"),
        ("redis://::1:6379/0", "[::1]:6379"),
        ("redis://host:70000/0", "a port of 1 to 65535"),
        ("redis://host:0/0", "a port of 1 to 65535"),
        ("redis+sentinel://one:1,/name", "a comma too many"),
        ("redis://host:/x/0", "a host and a port"),
        ("redis+sentinel://one:1,two:2", "lacks the name"),
        ("redis+sentinel://one:1,two:2/", "lacks the name"),
        ("redis+sentinel://one:1,two:2/name/x", "must be a number"),
        ("redis://host/0?db=1", "names two databases"),
        ("redis+sentinel://one/name/2?db=3", "names two databases"),
        ("redis+sentinel://one:1,two:x/name", "a port of 1 to 65535"),
        ("redis+sentinel://one:1/name?sentinel_kwargs=1", "no option 'sentinel_kwargs'"),
        ("unix://run/a.sock", "must begin with /"),
        ("unix://", "must begin with /"),
        ("redis://" + "a" * 70 + ":1/0", "no name in a network"),
    ],
)
def test_what_is_wrong_with_an_address_is_said(url: str, why: str) -> None:
    said = refusal(url)
    assert why in said
    assert "hush" not in said


# Shown.


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis+sentinel://u:hush@a:1,b:2/name/0", "redis+sentinel://***@a:1,b:2/name/0"),
        (
            "redis+sentinel://a:1,[::1]:2/name?sentinel_password=h",
            "redis+sentinel://a:1,[::1]:2/name",
        ),
        ("rediss+sentinel://u:hush@a:1,u:hush@b:2/name", "rediss+sentinel://***@b:2/name"),
        ("valkey://:hush@a/0", "valkey://***@a/0"),
        ("a:1,b:2", "a:1,b:2"),
        (" redis://a:1/0 ", "redis://a:1/0"),
        ("alice:hush@redis://a:1", "***@redis://a:1"),
    ],
)
def test_an_address_is_shown_without_its_secrets(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_the_servers_password_and_the_sentinels_are_two() -> None:
    # given
    sentinels = "redis+sentinel://a:1,[::1]:2/name"

    # then
    assert not has_password(sentinels)
    assert not has_password(f"{sentinels}?sentinel_password=hush")
    assert has_password("redis+sentinel://:hush@a:1,b:2/name")
    assert has_password(f"{sentinels}?password=hush")
    assert parse(with_password(sentinels, "a/b@")).login == ":a%2Fb%40@"


def test_redis_cli_asks_the_sentinels_for_the_master() -> None:
    # given
    url = "redis+sentinel://alice:hush@one:1,two:2/my name/3"

    # then
    assert cli_command(url) == (
        "redis-cli $(redis-cli -h one -p 1 SENTINEL get-master-addr-by-name 'my name' "
        "| xargs printf -- '-h %s -p %s') -n 3 --user alice --askpass"
    )


def test_what_redis_cli_is_given_by_the_sentinels_are_its_options() -> None:
    # given a shell in which redis-cli prints what a sentinel answers, or else its arguments
    redis_cli = (
        'redis-cli() { case "$*" in *SENTINEL*) printf "::1\\n7\\n";; *) echo "$@";; esac; }'
    )
    command = cli_command("redis+sentinel://one/name")

    # when
    said = subprocess.run(
        ["bash", "-c", f"{redis_cli}\n{command} PING"], capture_output=True, text=True, check=True
    ).stdout

    # then
    assert said == "-h ::1 -p 7 PING\n"
