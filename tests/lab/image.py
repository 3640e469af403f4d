"""The base image of the tests: a small Debian with bash, coreutils, python3 and curl, made here from
packages.

No registry is asked and no engine is needed: debootstrap fills a folder from the mirror that this machine's
own apt is set up with, and the folder becomes a docker archive. It is made once and kept by the digest of its
recipe.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

from tests.lab.archive import layer_image
from tests.lab.errors import LabError
from tests.lab.parts import search_path
from tests.lab.process import call, tail

NAME = "phalanx-test-base:1"
PACKAGES = ("bash", "coreutils", "curl", "python3")
# Dropped after the installation: nothing here is needed to run a program.
UNWANTED = (
    "var/lib/apt/lists",
    "var/cache",
    "var/log",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/i18n",
    "usr/share/lintian",
    "usr/share/bug",
    "usr/share/zoneinfo",
    "dev",
    "proc",
    "sys",
    "tmp",
    "run",
)
# Kept as empty folders for the engine to mount on.
FOLDERS = ("dev", "proc", "sys", "tmp", "run", "var/lib/apt/lists", "var/cache/apt/archives", "var/log")
# Slowest seen was under a minute; a mirror that stalls should not hold a test run for longer than this.
BUILD_SECONDS = 600.0


def cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "phalanx-lab"


def base_image(*, rebuild: bool = False) -> Path:
    """The archive of the base image, built if it is not in the cache. Raises LabError when it cannot be
    built."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"base-{_recipe()}.tar"
    with (folder / "lock").open("w") as lock:
        # Two test runs may want it at once; the second waits for the first to have built it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if rebuild or not archive.exists():
            _build(archive)
    return archive


def _recipe() -> str:
    text = repr((NAME, _release(), PACKAGES, UNWANTED, FOLDERS, os.uname().machine))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _release() -> str:
    for line in Path("/etc/os-release").read_text().splitlines():
        key, _, value = line.partition("=")
        if key == "VERSION_CODENAME":
            return value.strip('"')
    raise LabError(
        "cannot build the base image: /etc/os-release has no VERSION_CODENAME; build it on a Debian machine"
    )


def _mirror(release: str) -> str:
    """The mirror from which apt gets that release, whatever form its list of sources has."""
    listed = call(
        ["apt-get", "indextargets", "--format", "$(RELEASE) $(REPO_URI)"], doing="read apt's sources"
    )
    for line in listed.splitlines():
        suite, _, uri = line.partition(" ")
        if suite == release and uri:
            return uri
    raise LabError(f"cannot build the base image: apt has no source for {release}; see apt's sources.list")


def _proxy() -> dict[str, str]:
    """debootstrap fetches with wget, which knows nothing of apt's proxy setting."""
    text = call(["apt-config", "shell", "PROXY", "Acquire::http::Proxy"], doing="read apt's settings").strip()
    value = text.partition("=")[2].strip("'\"")
    return {"http_proxy": value} if value and value != "DIRECT" else {}


def _build(archive: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("debootstrap", path=search_path()):
        raise LabError(
            "cannot build the base image: it takes root and debootstrap; install debootstrap and run as root"
        )
    release = _release()
    with tempfile.TemporaryDirectory(prefix="phalanx-lab-image-", dir=archive.parent) as work:
        root, layer, new = Path(work, "root"), Path(work, "layer.tar"), Path(work, "image.tar")
        _bootstrap(release, root, archive.with_suffix(".log"))
        _strip(root)
        pack(root, layer)
        layer_image(new, name=NAME, layer=layer, cmd=["bash"])
        new.replace(archive)


def _bootstrap(release: str, root: Path, log: Path) -> None:
    argv = [
        "debootstrap",
        "--variant=minbase",
        f"--include={','.join(PACKAGES)}",
        release,
        str(root),
        _mirror(release),
    ]
    env = {**os.environ, **_proxy(), "PATH": search_path()}
    # debootstrap mounts /proc in the new root; a mount namespace of its own takes it away whatever happens.
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", *argv]
    with log.open("w") as out:
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=env,
                timeout=BUILD_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise LabError(
                f"cannot build the base image: not done in {BUILD_SECONDS:.0f} s; see {log}"
            ) from None
    if done.returncode:
        raise LabError(f"cannot build the base image: debootstrap: {tail(log, 3)}; see {log}")


def _strip(root: Path) -> None:
    for path in UNWANTED:
        shutil.rmtree(root / path, ignore_errors=True)
    for path in FOLDERS:
        (root / path).mkdir(parents=True, exist_ok=True)
    (root / "tmp").chmod(0o1777)
    for compiled in root.glob("usr/lib/python3*/**/__pycache__"):
        shutil.rmtree(compiled)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/apt/sources.list").unlink(missing_ok=True)
    (root / "etc/hostname").write_text("")


def pack(root: Path, layer: Path) -> None:
    """One uncompressed tar of the folder, in the order of names."""
    with tarfile.open(layer, "w", format=tarfile.PAX_FORMAT) as out:
        out.add(root, arcname=".", filter=_plain())


def _plain() -> Callable[[tarfile.TarInfo], tarfile.TarInfo]:
    def without_names(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        # Numbers only: names would be this machine's. Whole seconds keep the headers in plain ustar form.
        entry.uname = entry.gname = ""
        entry.mtime = int(entry.mtime)
        return entry

    return without_names
