"""What MongoDB and its client say, as what cannot be done, why, and what to do."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

from ...logs.clean import clean_text
from .address import Address
from .upload import Index, Upload

if TYPE_CHECKING:
    from pymongo import AsyncMongoClient
    from pymongo.errors import OperationFailure, PyMongoError

    Client = AsyncMongoClient[dict[str, Any]]

#: Characters of a server's words that are shown.
WORDS = 300
#: https://github.com/mongodb/mongo/blob/master/src/mongo/base/error_codes.yml
UNAUTHORIZED, AUTHENTICATION_FAILED, DUPLICATE_KEY = 13, 18, 11000


def not_unique(upload: Upload, address: Address, index: Index, error: OperationFailure) -> str:
    """Why the key's index could not be made."""
    fields = ", ".join(index.fields)
    if error.code == UNAUTHORIZED:
        return (
            f"cannot make {fields} unique in {upload.database}.{upload.collection}: not authorised; grant "
            f"readWrite on {upload.database}, or upload with --no-index"
        )
    cannot = f"cannot make {fields} unique in {upload.database}.{upload.collection}, so nothing was uploaded"
    if error.code != DUPLICATE_KEY:
        return f"{cannot}: {said(address, error)}; see the indexes there, or upload with --no-index"
    value = (error.details or {}).get("keyValue")
    example = f", such as {clean_text(str(dict(value)))[:WORDS]}" if value else ""
    return (
        f"{cannot}: documents there share a key{example}, and chance would say which one a row updates; "
        "remove all but one, choose more fields with -k, or upload with --no-index"
    )


def failure(upload: Upload, address: Address, client: Client, error: PyMongoError) -> str:
    """What the client raised when it was not about one row."""
    from pymongo.errors import ConnectionFailure, OperationFailure, ServerSelectionTimeoutError

    if isinstance(error, ServerSelectionTimeoutError):
        return _unreachable(address, client)
    if isinstance(error, OperationFailure):
        return _refused(upload, address, error)
    if isinstance(error, ConnectionFailure):
        return (
            f"cannot go on with {upload.shown}: lost {address.seen}: {said(address, error)}; "
            "the last batch may be stored in part; upload the file again"
        )
    return f"cannot upload {upload.shown} to {address.seen}: {said(address, error)}"


def _unreachable(address: Address, client: Client) -> str:
    servers = client.topology_description.server_descriptions().values()
    reasons = dict.fromkeys(_reason(address, server.error) for server in servers if server.error)
    why = "; ".join(reasons) or "no server there accepts writes"
    where = "MONGO_URI" if address.uri.startswith("mongodb+srv") else "MONGO_HOST, MONGO_PORT or MONGO_URI"
    tls = "" if address.tls else "; set MONGO_TLS=1 if it wants TLS"
    return (
        f"cannot reach MongoDB at {address.seen} within {address.timeout_ms / 1000:g} s: {why}; "
        f"say where it is with {where}{tls}"
    )


def _reason(address: Address, error: BaseException) -> str:
    """Why a connection failed. asyncio says of a refused one only that its call failed."""
    text = said(address, error)
    found = re.search(r"\[Errno (\d+)\] Connect call failed.*", text)
    return text[: found.start()] + os.strerror(int(found[1])) if found else text


def _refused(upload: Upload, address: Address, error: OperationFailure) -> str:
    if error.code == AUTHENTICATION_FAILED:
        source = address.auth_source or "admin"
        return (
            f"cannot log in to {address.seen} as {address.user} (users of database {source}): user or "
            "password is wrong; see MONGO_USER, MONGO_PASSWORD or MONGO_PASSWORD_FILE, MONGO_AUTH_SOURCE"
        )
    if error.code == UNAUTHORIZED and not address.user:
        return (
            f"cannot upload to {address.seen}: it wants a login; set MONGO_USER and MONGO_PASSWORD_FILE "
            "(or MONGO_PASSWORD)"
        )
    if error.code == UNAUTHORIZED:
        return (
            f"cannot upload to {upload.database}.{upload.collection} on {address.seen}: {address.user} is "
            f"not authorised; let an administrator grant the role readWrite on {upload.database}"
        )
    return f"cannot upload {upload.shown} to {address.seen}: {said(address, error)}"


def said(address: Address, error: BaseException) -> str:
    """The client's or server's own words, without what it appends for developers."""
    details = getattr(error, "details", None)
    text = str(details["errmsg"]) if isinstance(details, dict) and details.get("errmsg") else str(error)
    return shortened(address, re.split(r" \(configured timeouts|, full error:", text)[0])


def shortened(address: Address, text: str) -> str:
    """Words from elsewhere, without the password, for a terminal."""
    return clean_text(address.masked(text))[:WORDS]
