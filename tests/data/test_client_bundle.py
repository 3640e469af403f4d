"""The S3 client as a bundle: what a node with a bare Python does with it, and what one that cannot says."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from phalanx.agent.data.request import DataError, Source
from phalanx.agent.data.s3 import open_bucket
from phalanx.agent.library import unpack_library
from phalanx.controller.targets.library_file import library_zip

pytestmark = pytest.mark.local


def say(words: str) -> None:
    raise AssertionError(words)


def test_a_bare_python_imports_the_client_of_the_bundle(tmp_path: Path) -> None:
    bundle = library_zip(tmp_path / "cache", "obstore")
    with zipfile.ZipFile(bundle.path) as archive:
        names = archive.namelist()
    assert any(name.endswith(".abi3.so") for name in names)
    assert any(name.endswith("METADATA") for name in names)
    assert bundle.size < 8 << 20
    (tmp_path / "node").mkdir(mode=0o700)
    folder = unpack_library(bundle.path, tmp_path / "node")
    script = "import sys; sys.path.append(sys.argv[1]); import obstore.store; print(obstore.__file__)"
    argv = [sys.executable, "-I", "-S", "-c", script, str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(folder / "obstore" / "__init__.py")


def test_a_node_that_cannot_import_it_is_told_its_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    source = Source("minio", bucket="bucket", region="us-east-2")
    with pytest.raises(
        DataError, match=r"the S3 client .* cannot be used on this node \(.*Python 3.*install obstore"
    ):
        open_bucket(source, "/nowhere", say)
