"""Servers that do not answer, logins that are wrong, users who may not: one sentence, and the next step."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.cli.driver import Done, Phalanx, Terminal

from .rows import perf_csv, result

pytestmark = pytest.mark.mongo

PASSWORD = "p@ss:/%word"


@pytest.fixture(scope="module")
def guarded(secantus: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The port of a server that wants logins: writer may write to perf, reader may read it."""
    from pymongo import MongoClient

    place = str(tmp_path_factory.mktemp("guarded"))
    with secantus(storage_path=place) as open_server, MongoClient(open_server.uri) as client:
        for user, role in (("writer", "readWrite"), ("reader", "read")):
            client.admin.command("createUser", user, pwd=PASSWORD, roles=[{"role": role, "db": "perf"}])
    with secantus(storage_path=place, require_auth=True) as server:
        yield str(server.port)


def attempt(phalanx: Phalanx, *words: str, **env: str) -> Done:
    """An upload of one row, with these variables."""
    path = phalanx.place / "perf.csv"
    if not path.exists():
        perf_csv(path, result())
    return phalanx(
        "database", "-f", "perf.csv", "--db", "perf", "-c", "results", *words,
        env={"MONGO_TIMEOUT_MS": "2000", **env},
    )  # fmt: skip


def refused(done: Done) -> str:
    """The one sentence of a command that stored nothing."""
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1, done.err
    assert PASSWORD not in done.err
    return done.err.removeprefix("phalanx: ")


def test_a_port_where_nothing_listens_is_named(phalanx: Phalanx) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: nobody else gets the port meanwhile
        port = str(held.getsockname()[1])
        words = refused(attempt(phalanx, MONGO_HOST="127.0.0.1", MONGO_PORT=port, MONGO_TIMEOUT_MS="300"))
    assert words.startswith(f"cannot reach MongoDB at 127.0.0.1:{port} within 0.3 s: ")
    assert "Connection refused" in words
    assert "MONGO_HOST, MONGO_PORT or MONGO_URI; set MONGO_TLS=1 if it wants TLS" in words


def test_a_host_that_does_not_exist_is_named(phalanx: Phalanx) -> None:
    words = refused(attempt(phalanx, MONGO_HOST="no-such-host.invalid", MONGO_TIMEOUT_MS="300"))
    assert words.startswith("cannot reach MongoDB at no-such-host.invalid:27017 within 0.3 s: ")


def test_the_right_login_uploads_with_any_password(phalanx: Phalanx, guarded: str) -> None:
    file = phalanx.place / "password"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o600)
    done = attempt(
        phalanx,
        MONGO_HOST="127.0.0.1",
        MONGO_PORT=guarded,
        MONGO_USER="writer",
        MONGO_PASSWORD_FILE=str(file),
    )
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("user", ["writer", "nobody"])
def test_a_wrong_user_or_password_is_told_with_where_it_was_looked_for(
    phalanx: Phalanx, guarded: str, user: str
) -> None:
    words = refused(
        attempt(
            phalanx, MONGO_HOST="127.0.0.1", MONGO_PORT=guarded, MONGO_USER=user, MONGO_PASSWORD="hunter22"
        )
    )
    assert words == (
        f"cannot log in to 127.0.0.1:{guarded} as {user} (users of database admin): user or password is "
        "wrong; see MONGO_USER, MONGO_PASSWORD or MONGO_PASSWORD_FILE, MONGO_AUTH_SOURCE\n"
    )


def test_a_password_in_the_uri_is_never_shown(phalanx: Phalanx, guarded: str) -> None:
    words = refused(attempt(phalanx, MONGO_URI=f"mongodb://writer:hunter22@127.0.0.1:{guarded}/"))
    assert words.startswith(f"cannot log in to 127.0.0.1:{guarded} as writer")
    for uri in ("mongodb://u:hunter22@127.0.0.1:x/", "mongodb://u:hunter22@127.0.0.1/?timeot=hunter22"):
        done = attempt(phalanx, MONGO_URI=uri)
        assert (done.code, done.out) == (4, "")
        assert "hunter22" not in done.err
        assert done.err.startswith("phalanx: cannot use MONGO_URI: ")


def test_a_server_that_wants_a_login_says_so(phalanx: Phalanx, guarded: str) -> None:
    words = refused(attempt(phalanx, MONGO_HOST="127.0.0.1", MONGO_PORT=guarded))
    assert words.startswith(f"cannot upload to 127.0.0.1:{guarded}: it wants a login; set MONGO_USER and ")


@pytest.mark.parametrize("index", [["--no-index"], []])
def test_a_user_who_may_only_read_is_told_what_to_ask_for(
    phalanx: Phalanx, guarded: str, index: list[str]
) -> None:
    words = refused(
        attempt(
            phalanx, "-k", "model", *index,
            MONGO_HOST="127.0.0.1", MONGO_PORT=guarded, MONGO_USER="reader", MONGO_PASSWORD=PASSWORD,
        )
    )  # fmt: skip
    assert "not authorised" in words
    assert "readWrite on perf" in words


def test_a_server_that_goes_away_leaves_a_partial_upload_and_exit_1(
    phalanx: Phalanx, secantus: Any, tmp_path: Path
) -> None:
    path = perf_csv(tmp_path / "perf.csv", *(result(performance=str(number)) for number in range(2000)))
    words = ("database", "-f", str(path), "--db", "perf", "-c", "results", "--batch-size", "1")
    with secantus(storage_path=str(tmp_path / "db")) as server:
        env = {"MONGO_URI": server.uri, "MONGO_TIMEOUT_MS": "500"}
        with Terminal(phalanx, *words, env=env) as terminal:
            terminal.until("5 of 2000 rows")
            server.stop()
            assert terminal.ended() == 1
    assert b"partial: 2000 rows" in terminal.output
    assert b"phalanx: cannot " in terminal.output
    assert b"Traceback" not in terminal.output


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    place = tmp_path_factory.mktemp("tls")
    (place / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (place / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return place


def test_tls_is_used_and_its_certificate_checked(
    phalanx: Phalanx, secantus: Any, certificate: Path, tmp_path: Path
) -> None:
    cert = str(certificate / "cert.pem")
    with secantus(
        storage_path=str(tmp_path / "db"), tls_cert_file=cert, tls_key_file=str(certificate / "key.pem")
    ) as server:
        env: dict[str, Any] = {"MONGO_HOST": "127.0.0.1", "MONGO_PORT": str(server.port)}
        assert attempt(phalanx, **env, MONGO_TLS_CA_FILE=cert).code == 0
        env["MONGO_TIMEOUT_MS"] = "700"
        words = refused(attempt(phalanx, **env, MONGO_TLS="1"))
        assert "certificate verify failed" in words
        assert "MONGO_TLS=1 if" not in words
        assert "set MONGO_TLS=1 if it wants TLS" in refused(attempt(phalanx, **env))
