"""Where the server is and who asks: from the environment, with the password shown nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from phalanx.controller.results.database.address import address_of
from phalanx.controller.workflow.errors import InputError

PASSWORD = "p@ss:/%word"
LOGIN = {"MONGO_USER": "ci", "MONGO_PASSWORD": PASSWORD}


def test_the_defaults_are_madengine_s() -> None:
    address = address_of({"MONGO_USER": "", "HOME": "/x"})
    assert (address.seen, address.uri, address.tls) == ("localhost:27017", "mongodb://localhost:27017", False)
    assert address.client_options() == {"serverSelectionTimeoutMS": 5000, "connectTimeoutMS": 5000}
    assert address.warning() == ""


def test_a_login_is_given_as_arguments_and_never_in_the_address() -> None:
    address = address_of({**LOGIN, "MONGO_HOST": "db1", "MONGO_PORT": "2", "MONGO_AUTH_SOURCE": "perf"})
    options = address.client_options()
    assert (options["username"], options["password"], options["authSource"]) == ("ci", PASSWORD, "perf")
    assert address.uri == "mongodb://db1:2"


def test_no_text_form_shows_a_password() -> None:
    assert PASSWORD not in repr(address_of(LOGIN))
    uri = "mongodb://ci:hunter22@db1/"
    assert "hunter22" not in repr(address_of({"MONGO_URI": uri}))
    assert "hunter22" not in address_of({"MONGO_URI": uri}).masked(f"bad {uri} and hunter22")
    encoded = address_of({"MONGO_URI": "mongodb://ci:p%40ss@db1/"})
    assert encoded.masked("p%40ss p@ss") == "•••• ••••"


def test_a_password_file_is_read_when_only_its_owner_may(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    env = {"MONGO_USER": "ci", "MONGO_PASSWORD_FILE": str(file)}
    file.chmod(0o640)
    with pytest.raises(InputError, match=f"others may read it; run: chmod 600 {file}"):
        address_of(env)
    file.chmod(0o600)
    assert address_of(env).password == PASSWORD
    file.write_text("two\nlines\n")
    with pytest.raises(InputError, match="expected the password on one line"):
        address_of(env)


def test_a_uri_is_shown_by_its_hosts_and_goes_to_the_client_as_it_is() -> None:
    uri = "mongodb://u:secret99@a:1,b:2/perf?replicaSet=r&tls=true"
    address = address_of({"MONGO_URI": uri, "MONGO_TIMEOUT_MS": "250"})
    assert (address.seen, address.user, address.tls, address.uri) == ("a:1,b:2", "u", True, uri)
    assert address.client_options() == {"serverSelectionTimeoutMS": 250, "connectTimeoutMS": 250}
    assert address_of({"MONGO_URI": "mongodb+srv://cluster.example.net"}).tls


def test_a_login_beside_a_uri_goes_over_it() -> None:
    address = address_of({**LOGIN, "MONGO_URI": "mongodb://db1/?authSource=perf"})
    assert address.client_options()["username"] == "ci"
    assert "authSource" not in address.client_options()


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"MONGO_PORT": "70000"}, "MONGO_PORT=70000: expected a number from 1 to 65535"),
        ({"MONGO_PORT": "x"}, "MONGO_PORT=x"),
        ({"MONGO_TIMEOUT_MS": "0"}, "MONGO_TIMEOUT_MS=0"),
        ({"MONGO_HOST": "db1:27018"}, "MONGO_HOST 'db1:27018': .* the port goes into MONGO_PORT"),
        ({"MONGO_HOST": "mongodb://db1"}, "options into MONGO_URI"),
        ({"MONGO_USER": "ci"}, "cannot log in as ci: set MONGO_PASSWORD_FILE"),
        ({"MONGO_PASSWORD": "x"}, "there is a password and no MONGO_USER"),
        ({"MONGO_PASSWORD": "x", "MONGO_PASSWORD_FILE": "/y"}, "beside MONGO_PASSWORD"),
        ({"MONGO_USER": "u", "MONGO_PASSWORD_FILE": "/no/such"}, "/no/such: No such file"),
        ({"MONGO_TLS": "maybe"}, "MONGO_TLS=maybe: expected 1 or 0"),
        ({"MONGO_TLS": "0", "MONGO_TLS_CA_FILE": "/y"}, "with MONGO_TLS=0"),
        ({"MONGO_TLS_CA_FILE": "/no/such"}, "cannot read MONGO_TLS_CA_FILE /no/such"),
        ({"MONGO_URI": "mongodb://a", "MONGO_HOST": "b"}, "MONGO_URI beside MONGO_HOST"),
        ({"MONGO_URI": "http://a"}, "expected mongodb://HOST"),
    ],
)
def test_a_variable_that_cannot_be_used_is_named(env: dict[str, str], words: str) -> None:
    with pytest.raises(InputError, match=words):
        address_of(env)


@pytest.mark.parametrize(
    "env",
    [
        {"MONGO_URI": "mongodb://ci:hunter22@a@b/"},
        {"MONGO_URI": "mongodb://ci:hun/ter22@b/"},
        {"MONGO_URI": "mongodb://ci:hunter22@"},
        {"MONGO_URI": "mongo://ci:hunter22@b"},
        {"MONGO_HOST": "ci:hunter22@db1"},
    ],
)
def test_a_refused_address_is_not_shown(env: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        address_of(env)
    assert "ter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "seen"), [("::1", "[::1]:27017"), ("10.0.0.1", "10.0.0.1:27017"), ("db.x.net", "db.x.net:27017")]
)
def test_hosts_as_people_write_them(host: str, seen: str) -> None:
    assert address_of({"MONGO_HOST": host}).seen == seen


@pytest.mark.parametrize(
    ("env", "warned"),
    [
        ({"MONGO_HOST": "db1"}, True),
        ({"MONGO_HOST": "10.0.0.1"}, True),
        ({"MONGO_HOST": "db1", "MONGO_TLS": "1"}, False),
        ({"MONGO_HOST": "localhost"}, False),
        ({"MONGO_HOST": "127.1.2.3"}, False),
        ({"MONGO_HOST": "::1"}, False),
        ({"MONGO_URI": "mongodb://localhost:1,db2:2"}, True),
        ({"MONGO_URI": "mongodb://db1/?ssl=true"}, False),
        ({"MONGO_URI": "mongodb://%2Frun%2Fmongodb-27017.sock"}, False),
    ],
)
def test_a_login_in_the_clear_to_another_host_is_warned_of(env: dict[str, str], warned: bool) -> None:
    assert ("unencrypted; set MONGO_TLS=1" in address_of({**LOGIN, **env}).warning()) is warned
    without = {name: value for name, value in env.items() if name not in LOGIN}
    assert address_of(without).warning() == ""
