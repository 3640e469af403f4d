"""Data sets from SeaweedFS: what the S3 server of the other tests does not do is to look at who asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .seaweed import SeaweedStore, seaweed
from .store import Node, minio
from .test_s3 import TREE, WANTED

pytestmark = pytest.mark.seaweed


@pytest.fixture(scope="module")
def weed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedStore]:
    with seaweed(tmp_path_factory.mktemp("weed")) as found:
        yield found


def test_a_folder_and_a_large_object_come_whole(weed: SeaweedStore, node: Node, tmp_path: Path) -> None:
    bucket, content = weed.bucket(), os.urandom(20 << 20)
    weed.put(bucket, TREE)
    node.run(minio(weed, bucket, "set"))
    assert node.files() == WANTED
    weed.put(bucket, {"large/big": content}, chunk_size=5 << 20, use_multipart=True)
    other = Node(tmp_path / "other")
    other.place.mkdir()
    other.run(minio(weed, bucket, "large"))
    assert other.files() == {"big": content}


@pytest.mark.parametrize(
    ("env", "words"),
    [
        ({"MAD_MINIO_PASSWORD": "wrong"}, "it refuses the user or the password"),
        ({"MAD_MINIO_USERNAME": "nobody"}, "it refuses the user or the password"),
    ],
)
def test_who_may_not_ask_is_told_so(weed: SeaweedStore, node: Node, env: dict[str, str], words: str) -> None:
    bucket = weed.bucket()
    weed.put(bucket, TREE)
    node.env = env
    assert words in node.run(minio(weed, bucket, "set"), status=1)
    assert node.files() == {}


def test_a_bucket_that_is_not_there_is_named(weed: SeaweedStore, node: Node) -> None:
    assert "there is no such bucket" in node.run(minio(weed, "bucket-nowhere", "set"), status=1)
