"""Data sets in containers of a real engine: mounted where the model is told, writable where it may write."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.store import PASSWORD, USER, served
from tests.runtimes import archives, dockerd
from tests.stories.program import Phalanx
from tests.stories.test_data import project, recorded, row

pytestmark = pytest.mark.docker
IMAGE = "phx-test/data:1"
SCRIPT = """\
echo "home=$MAD_DATAHOME"
IFS=,
for folder in $MAD_DATAHOME; do
    for file in "$folder"/*; do read -r line < "$file"; echo "$file: $line"; done
    if (: > "$folder/mine") 2>/dev/null; then echo "$folder: writable"; else echo "$folder: read-only"; fi
done
echo "performance: 7 things/s"
"""


@pytest.fixture(scope="module")
def engine() -> Iterator[str]:
    if reason := dockerd.missing():
        pytest.skip(f"no engine: {reason}")
    directory = Path(tempfile.mkdtemp(prefix="phx-dockerd-"))
    daemon = dockerd.Dockerd(directory)
    try:
        daemon.start()
        archives.write_image(directory / "image.tar", IMAGE, shell="bash")  # noqa: S604 - which one the image has
        daemon.load(directory / "image.tar")
        yield daemon.url
    finally:
        daemon.stop()
        shutil.rmtree(directory, ignore_errors=True)


def test_each_kind_of_data_is_mounted_at_its_home(engine: str, local: Phalanx, place: Path) -> None:
    shelf, scratch = place / "shelf", place / "scratch"
    for folder in (shelf, scratch):
        folder.mkdir()
    (shelf / "x").write_text("of the node\n")
    with served() as store:
        bucket = store.bucket()
        store.put(bucket, {"set/y": b"of the store\n"})
        path = f"s3://{bucket}/set"
        document = {
            "here": {"local": {"path": str(shelf), "home": "/data"}},
            "stored": {"minio": {"path": path}},
            "own": {"minio": {"path": path, "readwrite": "true"}},
            "kept": {"minio": {"path": path, "mirrorlocal": str(scratch)}},
            "made": {"custom": {"path": "scripts/get.sh", "args": "hand"}},
        }
        folder = project(place, ",".join(document), document)
        (folder / "scripts" / "m" / "run.sh").write_text(SCRIPT)
        said = {"USERNAME": USER, "PASSWORD": PASSWORD, "MINIO_ENDPOINT": store.endpoint}
        env = {
            "MAD_MINIO": json.dumps(said),
            "PHALANX_CACHE_DIR": str(place / "cache"),
            "DOCKER_HOST": engine,
        }
        run = local.run("run", "--tags", "m", "--image", IMAGE, folder=folder, env=env)
    assert row(folder)["status"] == "SUCCESS"
    assert "home=/data,/data_dlm_1,/data_dlm_2,/data_dlm_3,/data_dlm_4" in run.stdout
    for line in (
        "/data/x: of the node", "/data: read-only",
        "/data_dlm_1/y: of the store", "/data_dlm_1: read-only",
        "/data_dlm_2/y: of the store", "/data_dlm_2: writable",
        "/data_dlm_3/y: of the store", "/data_dlm_3: writable",
        "/data_dlm_4/made.txt: made by hand", "/data_dlm_4: writable",
    ):  # fmt: skip
        assert line in run.stdout, line
    assert (scratch / "kept" / "mine").exists()
    assert not (shelf / "mine").exists()
    assert recorded(run.folder)[0]["data_provider_type"] == "local,minio,minio,minio,custom"
