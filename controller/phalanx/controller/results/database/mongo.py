"""The thin shell: an upload carried out by pymongo's asyncio client.

Nothing of pymongo is imported before a connection is wanted: it takes longer than the rest of a command.
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ...workflow.errors import InputError
from .address import Address
from .key import Identified
from .upload import Tally, Upload, batches, document, indexes, update
from .words import DUPLICATE_KEY, failure, not_unique, said, shortened

if TYPE_CHECKING:
    from pymongo import AsyncMongoClient
    from pymongo.asynchronous.collection import AsyncCollection

    Client = AsyncMongoClient[dict[str, Any]]
    Collection = AsyncCollection[dict[str, Any]]

#: Largest document, in bytes: https://www.mongodb.com/docs/manual/reference/limits/#bson-documents
DOCUMENT_LIMIT = 16 * 1024 * 1024
#: How long one answer may take, in seconds; a batch of 1,000 takes a healthy server under one.
ANSWER_S = 120


class MongoError(Exception):
    """The upload could not be done, or not to its end. The message is for the user."""


def check_sizes(upload: Upload) -> None:
    """Raises InputError that names the first row whose document MongoDB cannot hold."""
    import bson
    from bson.errors import BSONError

    for row in upload.rows:
        try:
            size = len(bson.encode(document(upload, row)))
        except (BSONError, OverflowError, ValueError) as error:
            raise InputError(f"cannot upload {upload.shown}: {row.document.place}: {error}") from error
        if size > DOCUMENT_LIMIT:
            raise InputError(
                f"cannot upload {upload.shown}: {row.document.place} is a document of {size / 2**20:.1f} "
                f"MiB; MongoDB holds {DOCUMENT_LIMIT // 2**20} MiB at most"
            )


def _client(address: Address) -> Client:
    """A client, not connected yet. Raises InputError for an address or options that it does not take."""
    from pymongo import AsyncMongoClient
    from pymongo.errors import PyMongoError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)  # how it tells of options that it does not know
            return AsyncMongoClient(
                address.uri,
                **address.client_options(),
                socketTimeoutMS=ANSWER_S * 1000,
                appname="phalanx",
                tz_aware=True,
            )
    except (PyMongoError, UserWarning, ValueError, OSError) as error:
        raise InputError(f"cannot use {address.origin}: {said(address, error)}") from error


async def carry_out(
    upload: Upload, address: Address, tally: Tally, on_batch: Callable[[], None]
) -> list[str]:
    """Do it. ``tally`` is right after every batch, whatever comes next; notes are returned.

    Raises MongoError; InputError for an address that the client does not take.
    """
    from pymongo.errors import PyMongoError

    client = _client(address)
    async with client:
        try:
            await client.admin.command("ping")
            collection = client[upload.database][upload.collection]
            notes = await _make_indexes(upload, address, collection)
            for batch in batches(upload):
                _stop_if_cancelled()
                await _write(upload, address, collection, batch, tally)
                on_batch()
        except PyMongoError as error:
            raise MongoError(failure(upload, address, client, error)) from error
    return notes


def _stop_if_cancelled() -> None:
    """A cancellation that came together with an answer of the server is lost in asyncio or the client."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


async def _make_indexes(upload: Upload, address: Address, collection: Collection) -> list[str]:
    """Make what is missing; notes on the rest. Raises MongoError when the key cannot be unique."""
    from pymongo.errors import OperationFailure

    if not upload.index:
        return []
    notes = []
    existing = [dict(one) async for one in await collection.list_indexes()]
    for index in indexes(upload, existing):
        keys = [(name, 1) for name in index.fields]
        try:
            await collection.create_index(keys, name=index.name, **index.options)
        except OperationFailure as error:
            if index.unique:
                raise MongoError(not_unique(upload, address, index, error)) from error
            notes.append(f"no index on {', '.join(index.fields)}: {said(address, error)}")
    return notes


async def _write(
    upload: Upload, address: Address, collection: Collection, batch: Sequence[Identified], tally: Tally
) -> None:
    """One batch, unordered: a row that is refused does not keep the others out."""
    from pymongo import InsertOne, UpdateOne
    from pymongo.errors import BulkWriteError

    requests: list[InsertOne[dict[str, Any]] | UpdateOne] = [
        UpdateOne(dict(row.identity), update(upload, row), upsert=True)
        if upload.upsert
        else InsertOne(document(upload, row))
        for row in batch
    ]
    try:
        result: Any = (await collection.bulk_write(requests, ordered=False)).bulk_api_result
    except BulkWriteError as error:
        result = error.details
    tally.inserted += result["nInserted"] + result["nUpserted"]
    tally.updated += result["nModified"]
    tally.unchanged += result["nMatched"] - result["nModified"]
    for refused in result["writeErrors"]:
        words = shortened(address, str(refused.get("errmsg", "")))
        if refused.get("code") == DUPLICATE_KEY:
            words = f"the collection has a document of its key already ({words})"
        tally.errors.append((batch[refused["index"]].document.place, words))
    for unsure in result["writeConcernErrors"]:
        why = shortened(address, str(unsure.get("errmsg", "")))
        raise MongoError(
            f"cannot be sure that {upload.shown} is stored: {why}; "
            "upload it again when the replica set is well"
        )
