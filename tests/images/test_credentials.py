"""What a registry is shown: of docker's own file and helpers, for the right registry, or nothing at all."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.images import credentials as module
from phalanx.controller.images.credentials import credentials, registry_of
from phalanx.controller.images.login import ImageSourceError
from phalanx.protocol.messages import Credentials, ImageSeed

REFERENCE = "reg.example:5000/a/b:1"
SHOWN = Credentials("me", "pass:word")


def packed(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def configured(folder: Path, document: Any) -> dict[str, str]:
    """An environment whose docker config is this."""
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "config.json").write_text(text)
    return {"DOCKER_CONFIG": str(folder)}


def helper(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A credential helper on the path that does this."""
    program = folder / "docker-credential-test"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


@pytest.mark.parametrize(
    ("reference", "registry"),
    [
        (REFERENCE, "reg.example:5000"),
        ("localhost/a:1", "localhost"),
        ("rocm/vllm:6.2", module.HUB),
        ("ubuntu:22.04", module.HUB),
        ("ghcr.io/a/b@sha256:00", "ghcr.io"),
    ],
)
def test_the_registry_of_an_image_is_found_as_docker_finds_it(reference: str, registry: str) -> None:
    assert registry_of(reference) == registry


async def test_credentials_of_the_file_are_those_of_the_images_registry(tmp_path: Path) -> None:
    auths = {
        "reg.example:5000": {"auth": packed("me:pass:word")},
        "ghcr.io": {"identitytoken": "a-token"},
        module.HUB: {"auth": packed("hub:x")},
    }
    environ = configured(tmp_path, {"auths": auths})
    assert await credentials(environ, REFERENCE) == SHOWN
    assert await credentials(environ, "ghcr.io/a:1") == Credentials("", "", "a-token")
    assert await credentials(environ, "ubuntu:22.04") == Credentials("hub", "x")
    assert await credentials(environ, "other.example/a:1") is None


@pytest.mark.parametrize("document", [{}, [], {"auths": 7}, {"auths": {"reg.example:5000": {}}}])
async def test_who_has_not_logged_in_shows_nothing(tmp_path: Path, document: Any) -> None:
    assert await credentials(configured(tmp_path, document), REFERENCE) is None
    assert await credentials({"HOME": str(tmp_path / "nowhere")}, REFERENCE) is None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "cannot read .*config.json"),
        ({"auths": {"reg.example:5000": {"auth": "%%%"}}}, "auths.reg.example:5000.auth of .*not base64"),
        ({"credsStore": "../../bin/sh"}, "no program's name"),
        ({"credHelpers": {"reg.example:5000": "not-there"}}, "cannot run docker-credential-not-there"),
    ],
)
async def test_what_cannot_be_used_is_named(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(ImageSourceError, match=words):
        await credentials(configured(tmp_path, document), REFERENCE)


async def test_a_helper_is_asked_for_just_this_registry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environ = configured(tmp_path, {"credsStore": "other", "credHelpers": {"reg.example:5000": "test"}})
    told = json.dumps({"ServerURL": "x", "Username": "me", "Secret": "pass:word"})
    helper(tmp_path, monkeypatch, f'test "$1 $(cat)" = "get reg.example:5000" && echo \'{told}\'')
    assert await credentials(environ, REFERENCE) == SHOWN
    helper(tmp_path, monkeypatch, """echo '{"Username": "<token>", "Secret": "t"}'""")
    assert await credentials(environ, REFERENCE) == Credentials("", "", "t")
    helper(tmp_path, monkeypatch, "echo credentials not found; exit 1")
    assert await credentials(environ, REFERENCE) is None
    helper(tmp_path, monkeypatch, "echo nonsense")
    with pytest.raises(ImageSourceError, match="cannot read the answer of docker-credential-test"):
        await credentials(environ, REFERENCE)


async def test_a_helper_that_hangs_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELPER_S", 0.2)
    helper(tmp_path, monkeypatch, "exec sleep 60")
    with pytest.raises(ImageSourceError, match=r"no answer in 0\.2 s"):
        await credentials(configured(tmp_path, {"credsStore": "test"}), REFERENCE)


def test_no_word_of_them_is_in_what_a_message_shows_of_itself() -> None:
    shown = repr(ImageSeed(1, REFERENCE, True, Credentials("me", "pass:word", "t0ken")))
    assert not [secret for secret in ("me'", "pass:word", "t0ken") if secret in shown]
