"""Who are you, and do you know the run's secret? Both sides prove it over the same transcript.

Inside TLS 1.3 whose certificate the agent pinned by fingerprint:

    C→A  Challenge  versions, nonce
    A→C  Hello      who I am, nonce, mac = HMAC(key, "phx1 agent" ‖ H(cert) ‖ H(Challenge) ‖
                                                 H(Hello, mac zero))
    C→A  Welcome    session key,     mac = HMAC(key, "phx1 controller" ‖ H(cert) ‖ H(Challenge) ‖ H(Hello) ‖
                                                 H(Welcome, mac zero))

``key`` is the join key of that node (derived from the run's secret) the first time, and the resume key
(derived from the session key that only this agent got) afterwards. Versions and features are inside the
transcript, so nothing can be stripped on the way; the certificate's hash is, so nothing can sit between.
The functions are pure: nonces and keys come in as arguments.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

from . import VERSION, VERSION_MIN
from .errors import AuthError
from .frames import canonical
from .messages import Challenge, Hello, Message, Welcome

MAC_BYTES = 32
_NO_MAC = bytes(MAC_BYTES)
_AGENT = b"phx1 agent"
_CONTROLLER = b"phx1 controller"


def _derive(key: bytes, *labels: str) -> bytes:
    """HKDF-SHA256 (RFC 5869) with an empty salt and one block of output; labels are length-prefixed."""
    info = b"".join(len(raw).to_bytes(4, "big") + raw for raw in (label.encode() for label in labels))
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def join_key(run_secret: bytes, run_id: str, node: str, node_rank: int) -> bytes:
    """The key with which the agent of one node proves itself the first time."""
    return _derive(run_secret, "join", run_id, node, str(node_rank))


def resume_key(session_key: bytes) -> bytes:
    """The key with which an agent that was welcomed once proves that it is the same one."""
    return _derive(session_key, "resume")


def _hash(message: Message) -> bytes:
    return hashlib.sha256(canonical(message)).digest()


def _hash_without_mac(message: Hello | Welcome) -> bytes:
    return hashlib.sha256(canonical(message, mac=_NO_MAC)).digest()


def hello_mac(key: bytes, certificate_hash: bytes, challenge: Challenge, hello: Hello) -> bytes:
    """The agent's proof over everything said so far and its own words."""
    said = _AGENT + certificate_hash + _hash(challenge) + _hash_without_mac(hello)
    return hmac.digest(key, said, "sha256")


def welcome_mac(
    key: bytes, certificate_hash: bytes, challenge: Challenge, hello: Hello, welcome: Welcome
) -> bytes:
    """The controller's proof over the whole dialogue."""
    said = _CONTROLLER + certificate_hash + _hash(challenge) + _hash(hello) + _hash_without_mac(welcome)
    return hmac.digest(key, said, "sha256")


def sign_hello(key: bytes, certificate_hash: bytes, challenge: Challenge, hello: Hello) -> Hello:
    """``hello`` with its mac."""
    return replace(hello, mac=hello_mac(key, certificate_hash, challenge, hello))


def sign_welcome(
    key: bytes, certificate_hash: bytes, challenge: Challenge, hello: Hello, welcome: Welcome
) -> Welcome:
    """``welcome`` with its mac."""
    return replace(welcome, mac=welcome_mac(key, certificate_hash, challenge, hello, welcome))


def check_hello(key: bytes, certificate_hash: bytes, challenge: Challenge, hello: Hello) -> None:
    """Raises AuthError when the agent does not know ``key`` or saw another dialogue than we did."""
    if not hmac.compare_digest(hello.mac, hello_mac(key, certificate_hash, challenge, hello)):
        raise AuthError(f"wrong proof from a peer that calls itself {hello.node!r}")


def check_welcome(
    key: bytes, certificate_hash: bytes, challenge: Challenge, hello: Hello, welcome: Welcome
) -> None:
    """Raises AuthError when the controller does not know ``key`` or saw another dialogue than we did."""
    if not hmac.compare_digest(welcome.mac, welcome_mac(key, certificate_hash, challenge, hello, welcome)):
        raise AuthError("the controller could not prove that it knows the run's secret")


def agree_version(challenge: Challenge) -> int:
    """The newest version that both sides speak.

    Raises AuthError when there is none, naming both ranges.
    """
    version = min(VERSION, challenge.version_max)
    if version < max(VERSION_MIN, challenge.version_min):
        raise AuthError(
            f"no common protocol version: this agent speaks {VERSION_MIN}-{VERSION}, "
            f"the controller {challenge.version_min}-{challenge.version_max}"
        )
    return version
