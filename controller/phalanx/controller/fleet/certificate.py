"""The run's own TLS identity: an ephemeral P-256 certificate, made in memory, pinned by fingerprint.

There is no CA and nothing to install: agents get the fingerprint with their bootstrap line and check it
before they send a byte. The key never touches a disk.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: Validity does not matter (agents check the fingerprint, not dates: node clocks may be wrong).
_LIFETIME = timedelta(days=3650)


@dataclass(frozen=True, slots=True)
class Identity:
    """A certificate with its key, as a server context. ``fingerprint``: sha256 of the certificate's DER."""

    context: ssl.SSLContext
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key as one PEM, and the sha256 of the certificate's DER."""

    pem: bytes
    fingerprint: bytes


def make_key_pair(common_name: str) -> KeyPair:
    """A fresh self-signed P-256 certificate; who gets the fingerprint over a safe way can trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:64])])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _LIFETIME)
        .not_valid_after(now + _LIFETIME)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ) + certificate.public_bytes(serialization.Encoding.PEM)
    der = certificate.public_bytes(serialization.Encoding.DER)
    return KeyPair(pem, hashlib.sha256(der).digest())


def make_identity(run_id: str) -> Identity:
    """A fresh certificate for one run, TLS 1.3 only, without session tickets."""
    pair = make_key_pair(f"phalanx {run_id}")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.num_tickets = 0
    _load(context, pair.pem)
    return Identity(context, pair.fingerprint)


def _load(context: ssl.SSLContext, pem: bytes) -> None:
    """Give the context its key through an anonymous file in memory: it takes paths only."""
    fd = os.memfd_create("phalanx-identity", os.MFD_CLOEXEC)
    try:
        with os.fdopen(fd, "wb", closefd=False) as file:
            file.write(pem)
        context.load_cert_chain(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)
