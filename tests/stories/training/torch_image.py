"""The base image of the torch tier: the tests' Debian with torch for CPUs in it, as a docker archive.

Wheels are downloaded once, by pip as it is set up on this machine, into the folder where the lab keeps its
base image; no engine and no network is needed after that. PyTorch's builds without CUDA have versions ending
in ``+cpu`` and are on no general index: where pip is not set up for them, PHALANX_TORCH_INDEX names an index
that has them. The plain version is refused on purpose, since it brings 2.9 GB of CUDA libraries.

``python -m tests.stories.training.torch_image`` makes it and says its size.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from tests.lab.archive import layer_image
from tests.lab.errors import LabError
from tests.lab.image import base_image, cache_folder, pack
from tests.lab.process import tail

NAME = "phalanx-test-torch:1"
WHEEL = "torch==2.13.0+cpu"
INDEX = "PHALANX_TORCH_INDEX"
#: Oldest C library that the wheels may want; Debian 12 has 2.36.
GLIBC = ("2_28", "2_17", "2_5")
#: Of torch: tests, headers, and libraries that are linked at build time only.
UNWANTED = ("torch/test", "torch/include", "torch/share/cmake")
UNWANTED_FILES = ("torch/bin/*test*", "torch/bin/protoc*", "torch/lib/*_test.so", "torch/lib/*.a")
#: 190 MB came in 3 s from a disk; a slow mirror may take its time, one that stalls may not.
DOWNLOAD_S = 1800.0
UNPACK_S = 600.0


def torch_image() -> Path:
    """The archive, made if it is not in the cache. Raises LabError when it cannot be made."""
    base = base_image()
    folder = cache_folder()
    archive = folder / f"torch-{_recipe(base)}.tar"
    with (folder / "torch.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.exists():
            _build(base, archive)
    return archive


def _recipe(base: Path) -> str:
    text = repr((NAME, WHEEL, GLIBC, UNWANTED, UNWANTED_FILES, base.name))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _build(base: Path, archive: Path) -> None:
    version = python_of(base)
    wheels = _download(archive.parent / f"torch-wheels-{WHEEL.rpartition('=')[2]}-{version}", version)
    with tempfile.TemporaryDirectory(prefix="phalanx-torch-", dir=archive.parent) as work:
        root, layer, new = Path(work, "root"), Path(work, "layer.tar"), Path(work, "image.tar")
        _unpack(wheels, root, version)
        pack(root, layer)
        layer_image(new, name=NAME, layer=layer, cmd=["bash"], base=base)
        new.replace(archive)


def python_of(base: Path) -> str:
    """The version ("3.11") of the Python in an image whose first layer has it."""
    with tarfile.open(base) as image:
        first = json.loads(_content(image, "manifest.json"))[0]["Layers"][0]
        with tarfile.open(fileobj=io.BufferedReader(_file(image, first))) as layer:
            target = layer.getmember("./usr/bin/python3").linkname
    version = target.rpartition("/")[2].removeprefix("python")
    if not version.startswith("3."):
        raise LabError(
            f"cannot add torch to {base}: its python3 is a link to {target!r}, not python3.N; build it anew"
        )
    return version


def _file(image: tarfile.TarFile, member: str) -> io.RawIOBase:
    found = image.extractfile(member)
    if found is None:
        raise LabError(f"cannot read {member} of {image.name!r}: not a file; remove the archive")
    return found  # type: ignore[return-value]


def _content(image: tarfile.TarFile, member: str) -> bytes:
    return _file(image, member).read()


def _for(version: str) -> list[str]:
    """pip's options for the Python of the image, which need not be the one that runs this."""
    machine = platform.machine()
    platforms = [f"manylinux_{glibc}_{machine}" for glibc in GLIBC] + [f"manylinux2014_{machine}"]
    tag = "cp" + version.replace(".", "")
    return [
        *("--only-binary", ":all:", "--implementation", "cp", "--python-version", version, "--abi", tag),
        *(word for name in platforms for word in ("--platform", name)),
    ]


def _download(folder: Path, version: str) -> Path:
    """The folder with the wheels of torch and all that it needs."""
    if folder.exists():
        return folder
    new = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=folder.parent))
    index = os.environ.get(INDEX, "")
    where = ["--index-url", index] if index else []
    try:
        _pip(["download", "--dest", str(new), *_for(version), *where, WHEEL], DOWNLOAD_S, f"download {WHEEL}")
        new.chmod(0o755)
        new.rename(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _unpack(wheels: Path, root: Path, version: str) -> None:
    """Install the wheels where Debian's Python looks for what pip installs."""
    packages = root / "usr" / "local" / "lib" / f"python{version}" / "dist-packages"
    offline = ["--no-index", "--find-links", str(wheels), "--no-compile", "--target", str(packages)]
    _pip(["install", *offline, *_for(version), WHEEL], UNPACK_S, f"install {WHEEL} into the image")
    for path in UNWANTED:
        shutil.rmtree(packages / path, ignore_errors=True)
    for pattern in UNWANTED_FILES:
        for file in packages.glob(pattern):
            file.unlink()
    programs = root / "usr" / "local" / "bin"
    # with --target, pip puts programs beside the packages, for the Python that runs pip
    (packages / "bin").rename(programs)
    for program in programs.iterdir():
        first, _, rest = program.read_bytes().partition(b"\n")
        if first.startswith(b"#!"):
            program.write_bytes(b"#!/usr/bin/python3\n" + rest)


def _pip(words: list[str], within: float, doing: str) -> None:
    log = cache_folder() / "torch.log"
    argv = [sys.executable, "-m", "pip", *words, "--disable-pip-version-check", "--no-input"]
    with log.open("w") as out:
        try:
            done = subprocess.run(
                argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=within, check=False
            )
        except subprocess.TimeoutExpired:
            raise LabError(f"cannot {doing}: not done in {within:.0f} s; see {log}") from None
    if done.returncode:
        raise LabError(
            f"cannot {doing}: pip: {tail(log, 2)}; see {log}. Builds for CPUs are on no general index: set "
            f"{INDEX} to one that has them, such as PyTorch's own"
        )


def main() -> int:
    began = time.monotonic()
    try:
        archive = torch_image()
    except LabError as error:
        print(f"the tier torch cannot run: {error}", file=sys.stderr)
        return 1
    size = archive.stat().st_size / 1e6
    print(f"{NAME}: {size:.0f} MB in {archive}, ready in {time.monotonic() - began:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
