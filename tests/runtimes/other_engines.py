"""The tests of engines under engines that Debian 12's docker.io is not: ``make test-engines``.

    python -m tests.runtimes.other_engines FOLDER

Docker with the containerd store comes from the packages of Debian's unstable, which apt fetches from where
it gets all others and whose signatures it checks; they are unpacked into FOLDER and installed nowhere. All
tests of the docker tier run with it as their engine, and the stories of images on a cluster half of whose
nodes have it. Podman is Debian 12's; it runs the tests that any engine can be put under
(PHALANX_TEST_DOCKER_HOST).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.runtimes.dockerd import answering, until

SUITE, PACKAGES = "sid", ("docker.io", "containerd")
STORIES = [f"tests/stories/test_{name}.py" for name in ("image_sync", "images", "several_images")]
CONTRACT = [
    f"tests/runtimes/test_{name}.py" for name in ("layers", "runtime_contract", "stopping", "pausing")
]
#: Of podman, as its own limits are and without systemd.
PODMAN = """[containers]
default_ulimits = ["nofile=20000:20000", "nproc=30000:30000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""


def fetch(folder: Path) -> Path:
    """The programs of the other Docker, under FOLDER/docker."""
    programs = folder / "docker"
    if (programs / "usr/sbin/dockerd").is_file():
        return programs
    private = folder / "apt"
    for part in ("lists/partial", "archives/partial"):
        (private / part).mkdir(parents=True, exist_ok=True)
    targets = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages"]
    site = subprocess.run(targets, capture_output=True, text=True, check=True).stdout.split()[0]
    (private / "sources.list").write_text(f"deb {site} {SUITE} main\n")
    options = {
        "Dir::State::Lists": private / "lists",
        "Dir::Cache::Archives": private / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Etc::SourceList": private / "sources.list",
        "Dir::Etc::SourceParts": "/dev/null",
        "APT::Sandbox::User": "root",
    }
    apt = ["apt-get", "-q", *(f"-o{name}={value}" for name, value in options.items())]
    subprocess.run([*apt, "update"], check=True)
    subprocess.run([*apt, "download", *PACKAGES], check=True, cwd=private)
    for package in private.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package, programs], check=True)
    return programs


def with_first(programs: Path) -> dict[str, str]:
    """The environment in which they are found before the machine's own."""
    path = f"{programs}/usr/bin:{programs}/usr/sbin:{os.environ['PATH']}"
    return {"PATH": path, "PHALANX_TEST_CONTAINERD_STORE": "1"}


@contextmanager
def podman() -> Iterator[str]:
    """The address of a podman of our own."""
    subprocess.run(["apt-get", "-qq", "install", "--no-install-recommends", "-y", "podman"], check=True)
    with tempfile.TemporaryDirectory(prefix="phx-podman-") as name:
        folder = Path(name)
        (folder / "containers.conf").write_text(PODMAN)
        places = ("--root", folder / "root", "--runroot", folder / "run", "--storage-driver", "overlay")
        socket = folder / "podman.sock"
        service = subprocess.Popen(
            ["podman", *places, "system", "service", "--time", "0", f"unix://{socket}"],
            env={**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")},
            cwd=folder,  # where its monitors leave files
        )
        try:
            until(lambda: answering(socket), 30, "podman answers")
            yield f"unix://{socket}"
        finally:
            service.terminate()
            service.wait()
            subprocess.run(["umount", "-l", folder / "root" / "overlay"], check=False, capture_output=True)


def passed(what: str, arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    """Whether the tests pass so."""
    print(f"\n==== {what}", flush=True)
    argv = [sys.executable, "-m", "pytest", "-q", *arguments]
    return subprocess.run(argv, env={**os.environ, **environ}, check=False).returncode == 0


def main() -> None:
    programs = fetch(Path(sys.argv[1]).resolve())
    said = subprocess.run(
        [programs / "usr/sbin/dockerd", "--version"], capture_output=True, text=True, check=True
    )
    other = said.stdout.strip()
    mixed = {"PHALANX_TEST_OTHER_ENGINE": str(programs), "PHALANX_TEST_OTHER_NODES": "n2 n4"}
    good = [
        passed(f"{other}, containerd store", ["-m", "docker"], with_first(programs)),
        passed(f"half the nodes with {other}, containerd store", ["-m", "lab", *STORIES], mixed),
    ]
    with podman() as url:
        good.append(
            passed("podman", ["-m", "docker and not deltas", *CONTRACT], {"PHALANX_TEST_DOCKER_HOST": url})
        )
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
