"""Data sets from an S3 server: the agent's own program against a real one, as a process of its own."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from .store import PASSWORD, USER, Node, Store, minio

pytestmark = pytest.mark.local
TREE = {
    "set/a.txt": b"a" * 1000,
    "set/deep/b.bin": bytes(range(256)) * 400,
    "set/deep/er/c": b"",
    "settle/not-of-it": b"x",
}
WANTED = {key.removeprefix("set/"): content for key, content in TREE.items() if key.startswith("set/")}


@pytest.mark.parametrize("key", ["set", "set/"])
def test_a_folder_comes_whole_and_nothing_that_only_begins_with_its_name(
    store: Store, node: Node, key: str
) -> None:
    bucket = store.bucket()
    store.put(bucket, TREE)
    said = node.run(minio(store, bucket, key))
    assert node.files() == WANTED
    assert f"data set d is taken from minio: s3://{bucket}/{key}" in said
    assert node.record()["data_provider_type"] == "minio"
    assert node.record()["data_size"] == "101K"
    assert float(node.record()["data_download_duration"]) >= 0
    assert {path.stat().st_mode & 0o777 for path in node.folder.rglob("*")} == {0o755, 0o644}


def test_a_whole_bucket_is_a_data_set(store: Store, node: Node) -> None:
    bucket = store.bucket()
    store.put(bucket, TREE)
    node.run(minio(store, bucket))
    assert node.files() == TREE


def test_a_single_object_comes_under_its_own_name(store: Store, node: Node) -> None:
    bucket = store.bucket()
    store.put(bucket, {"a/weights.bin": b"w" * 5000, "a/weights.bin.old": b"no"})
    node.run(minio(store, bucket, "a/weights.bin"))
    assert node.files() == {"weights.bin": b"w" * 5000}


def test_an_object_of_several_parts_comes_whole(store: Store, node: Node) -> None:
    bucket, content = store.bucket(), os.urandom(20 << 20)
    store.put(bucket, {"set/big": content}, chunk_size=5 << 20, use_multipart=True)
    node.run(minio(store, bucket, "set"))
    assert hashlib.sha256(node.files()["big"]).digest() == hashlib.sha256(content).digest()
    assert node.record()["data_size"] == "20M"


def test_objects_that_only_stand_for_folders_are_no_files(store: Store, node: Node) -> None:
    bucket = store.bucket()
    store.put(bucket, {"set/sub/x": b"x"})
    store.put_as_is(bucket, "set/", b"")
    store.put_as_is(bucket, "set/sub/", b"")
    store.put_as_is(bucket, "set/empty/", b"")
    node.run(minio(store, bucket, "set"))
    assert node.files() == {"sub/x": b"x"}


def test_what_is_whole_does_not_come_again_and_what_changed_does(store: Store, node: Node) -> None:
    bucket = store.bucket()
    store.put(bucket, TREE)
    source = minio(store, bucket, "set")
    node.run(source)
    untouched = (node.folder / "deep" / "b.bin").stat().st_mtime_ns
    (node.folder / "stranger").write_text("who put this here")
    store.put(bucket, {"set/a.txt": b"other" * 200})
    said = node.run(source)
    assert "2 of 3 files are here already" in said
    assert "1 files that are not in the store were removed" in said
    assert node.files() == {**WANTED, "a.txt": b"other" * 200}
    assert (node.folder / "deep" / "b.bin").stat().st_mtime_ns == untouched


def test_a_file_that_someone_changed_on_the_node_comes_again(store: Store, node: Node) -> None:
    bucket = store.bucket()
    store.put(bucket, TREE)
    node.run(minio(store, bucket, "set"))
    (node.folder / "a.txt").write_bytes(b"b" * 1000)
    node.run(minio(store, bucket, "set"))
    assert node.files() == WANTED


def test_a_fetch_that_was_killed_goes_on_with_what_is_missing(store: Store, node: Node) -> None:
    bucket = store.bucket()
    many = {f"set/{number:03}": os.urandom(400_000) for number in range(120)}
    store.put(bucket, many)
    process = node.start(minio(store, bucket, "set"))
    first = node.folder.with_name(".content.done")
    while process.poll() is None and not (first.exists() and first.read_text().count("\n") > 3):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    whole = len(node.files())
    assert 0 < whole < 120
    said = node.run(minio(store, bucket, "set"))
    assert " of 120 files are here already" in said
    assert node.files() == {key.removeprefix("set/"): content for key, content in many.items()}
    assert not node.folder.with_name(".content.parts").exists()


def test_two_at_once_fetch_it_once(store: Store, node: Node) -> None:
    bucket = store.bucket()
    store.put(bucket, {f"set/{number}": os.urandom(200_000) for number in range(30)})
    processes = [node.start(minio(store, bucket, "set")) for _ in range(3)]
    said = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("30 of 30 files are here already" in words for words in said) == 2
    assert len(node.files()) == 30


@pytest.mark.parametrize(
    ("bucket", "key", "words"),
    [("no-such-bucket", "set", "there is no such bucket"), (None, "nothing-here", "there is nothing at")],
)
def test_what_is_not_there_is_named(
    store: Store, node: Node, bucket: str | None, key: str, words: str
) -> None:
    said = node.run(minio(store, bucket or store.bucket(), key), status=1)
    assert f"cannot provide data set d on n1: minio: {words}" in said or words in said
    assert node.place.joinpath("why").read_text().startswith("cannot provide data set d on n1: minio: ")


def test_a_store_that_does_not_answer_is_named(store: Store, node: Node) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        said = node.run(minio(store, "bucket", "set", endpoint=endpoint), status=1)
    assert f"minio: s3://bucket/set at {endpoint}: it cannot be reached" in said
    assert "Traceback" not in said


def test_the_first_provider_that_can_be_used_is_taken_and_the_others_say_why_not(
    store: Store, node: Node
) -> None:
    bucket = store.bucket()
    store.put(bucket, {"set/x": b"x"})
    local = {"provider": "local", "path": "/nowhere/at/all"}
    refused = {"provider": "nas", "path": "/x", "refused": "there are no NAS_NODES"}
    said = node.run(
        local,
        minio(store, bucket, "other"),
        refused,
        {**minio(store, bucket, "set"), "provider": "aws"},
    )
    assert "local cannot be used here: /nowhere/at/all is not on this node" in said
    assert f"minio cannot be used here: there is nothing at s3://{bucket}/other" in said
    assert "nas cannot be used here: there are no NAS_NODES" in said
    assert node.record()["data_provider_type"] == "aws"


def test_nothing_usable_names_data_set_node_and_every_reason(store: Store, node: Node) -> None:
    bucket = store.bucket()
    said = node.run({"provider": "local", "path": "/nowhere"}, minio(store, bucket, "set"), status=1)
    assert "cannot provide data set d on n1: local: /nowhere is not on this node; minio: there is" in said
    assert not (node.place / "results" / ".phalanx").exists()


def test_a_link_in_a_folder_that_workloads_write_to_leads_nowhere(store: Store, node: Node) -> None:
    bucket, outside = store.bucket(), node.place / "outside"
    store.put(bucket, {"set/sub/x": b"evil"})
    outside.mkdir()
    (node.folder / "sub").symlink_to(outside)
    said = node.run(minio(store, bucket, "set"), status=1)
    assert "cannot provide data set d on n1" in said
    assert not list(outside.iterdir())


class _Spoiled(BaseHTTPRequestHandler):
    """A store behind something that changes bytes; with ``encrypted`` it says why its ETags are no MD5s."""

    encrypted = False
    upstream = ""

    def do_GET(self) -> None:
        self._pass_on("GET")

    def do_HEAD(self) -> None:
        self._pass_on("HEAD")

    def _pass_on(self, method: str) -> None:
        asked = urllib.request.Request(self.upstream + self.path, method=method)
        for name, value in self.headers.items():
            asked.add_header(name, value)
        try:
            with urllib.request.urlopen(asked, timeout=10) as answer:
                body, headers, status = answer.read(), answer.headers, answer.status
        except urllib.error.HTTPError as error:
            body, headers, status = error.read(), error.headers, error.code
        if status == 200 and body and b"<?xml" not in body[:100]:
            body = body[:-1] + b"!"
        self.send_response(status)
        self._headers(headers, int(headers.get("Content-Length") or len(body)))
        if method == "GET":
            self.wfile.write(body)

    def _headers(self, headers: Message, length: int) -> None:
        for name in ("ETag", "Last-Modified", "Content-Type"):
            if value := headers.get(name):
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        if self.encrypted:
            self.send_header("x-amz-server-side-encryption", "aws:kms")
        self.end_headers()

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def spoiled(store: Store, *, encrypted: bool) -> Iterator[str]:
    handler = type("Handler", (_Spoiled,), {"encrypted": encrypted, "upstream": store.endpoint})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_bytes_that_are_not_those_of_the_store_are_refused(store: Store, node: Node) -> None:
    bucket = store.bucket()
    store.put(bucket, {"set/x": b"content"})
    with spoiled(store, encrypted=False) as endpoint:
        said = node.run(minio(store, bucket, "set", endpoint=endpoint), status=1)
    assert "set/x: its bytes are not what the store says they are (MD5 " in said
    assert node.files() == {}


def test_an_etag_that_is_no_md5_since_the_store_encrypts_is_not_taken_for_one(
    store: Store, node: Node
) -> None:
    bucket = store.bucket()
    store.put(bucket, {"set/x": b"content"})
    with spoiled(store, encrypted=True) as endpoint:
        said = node.run(minio(store, bucket, "set", endpoint=endpoint))
    assert "the store encrypts by aws:kms: its ETags are no MD5s, sizes alone are verified" in said
    assert node.files() == {"x": b"conten!"}


def test_no_credential_is_in_any_file_of_the_node(store: Store, node: Node) -> None:
    bucket = store.bucket()
    store.put(bucket, TREE)
    node.run(minio(store, bucket, "set"))
    for path in node.place.rglob("*"):
        if path.is_file():
            assert not any(canary.encode() in path.read_bytes() for canary in (USER, PASSWORD)), path
