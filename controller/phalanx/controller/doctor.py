"""What this machine offers to a run: probes gather, findings judge, and nothing here is alarmed without need.

Having no Slurm or no container engine is no error: it rules a target or a runtime out and leaves the rest. A
finding is bad only when local runs would not work.
"""

from __future__ import annotations

import http.client
import os
import platform
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from phalanx.controller.builds.argv import HELP_ARGV, PROGRAM, builder_of
from phalanx.controller.runs.words import size
from phalanx.protocol.release import VERSION

#: A scheduler that does not answer within this is shown as not answering.
COMMAND_S = 5.0
#: Below this a run directory fills up soon: logs are kept whole.
LOW_DISK = 1_000_000_000
_CLOSED = "is there, but you may not use it"
DOCKER_SOCKET = "/var/run/docker.sock"
#: Slurm releases whose srun has --overlap (20.11).
OLDEST_SLURM = (20, 11)

#: What a client builds with.
BUILDKIT, CLASSIC = "BuildKit", "classic builder"


class Level(Enum):
    """What a finding means for the user."""

    READY = "ready"
    ABSENT = "absent"
    WARN = "warn"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at; ``hint`` is the next step, "" when there is none to take."""

    section: str
    name: str
    level: Level
    words: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Probes:
    """What was found on this machine; "" for absent. ``engines``: kind to version, or "!" and why not;
    ``builder``: what the client builds with, "!" and why not."""

    version: str = ""
    python: tuple[int, ...] = sys.version_info[:3]
    machine: str = ""
    slurm: str = ""
    slurm_error: str = ""
    job_id: str = ""
    ssh: str = ""
    engines: Mapping[str, str] = field(default_factory=dict)
    builder: str = ""
    runs: str = ""
    runs_error: str = ""
    runs_free: int = 0
    socket_error: str = ""


def findings(probes: Probes) -> list[Finding]:
    """The judgement, in the order of the screen."""
    found = [_python(probes), Finding("Targets", "local", Level.READY, "agents on this machine")]
    found.append(_slurm(probes))
    found += _engines(probes)
    found.append(_builds(probes))
    found += [_runs(probes), _sockets(probes)]
    return found


def _python(probes: Probes) -> Finding:
    shown = ".".join(str(part) for part in probes.python)
    return Finding("Program", "phalanx", Level.READY, f"{probes.version} · Python {shown} · {probes.machine}")


def _slurm(probes: Probes) -> Finding:
    if not probes.slurm:
        if probes.slurm_error:
            return Finding(
                "Targets", "slurm", Level.WARN, probes.slurm_error, "is this a login node? try: sinfo"
            )
        return Finding("Targets", "slurm", Level.ABSENT, "not found")
    inside = f", inside job {probes.job_id}" if probes.job_id else ""
    if len(_release(probes.slurm)) > 0 and _release(probes.slurm) < OLDEST_SLURM:
        return Finding(
            "Targets",
            "slurm",
            Level.WARN,
            f"{probes.slurm}: srun has no --overlap before 20.11",
            "upgrade Slurm",
        )
    return Finding("Targets", "slurm", Level.READY, probes.slurm + inside)


def _release(version: str) -> tuple[int, ...]:
    parts = version.removeprefix("slurm").strip().lstrip("-wlm ").split(".")
    return tuple(int(part) for part in parts[:2] if part.isdigit())


def _engines(probes: Probes) -> list[Finding]:
    found = []
    for kind in ("docker", "podman"):
        version = probes.engines.get(kind, "")
        if version.startswith("!"):
            hint = f"{_mended(version[1:])}, or use --runtime process"
            found.append(Finding("Containers", kind, Level.WARN, version[1:], hint))
        else:
            level = Level.READY if version else Level.ABSENT
            found.append(Finding("Containers", kind, level, version or "not found"))
    return found


def _mended(words: str) -> str:
    """What helps with an engine that is there and cannot be used; ``words``: what was found."""
    if words.startswith("DOCKER_HOST"):
        return "unset DOCKER_HOST, or set it to unix:///PATH"
    return "add yourself to its group" if words.endswith(_CLOSED) else "start the engine"


def _builds(probes: Probes) -> Finding:
    section, name = "Containers", "builds"
    if not probes.builder:
        return Finding(
            section, name, Level.ABSENT, f"no {PROGRAM} client; --build-on-compute needs none here"
        )
    if probes.builder.startswith("!"):
        return Finding(section, name, Level.WARN, probes.builder[1:], f"see what {PROGRAM} build --help says")
    if probes.builder != BUILDKIT:
        return Finding(
            section,
            name,
            Level.WARN,
            f"{PROGRAM} build with the {probes.builder}: it mounts no secrets",
            "install the client's buildx plugin if a Dockerfile mounts one",
        )
    return Finding(section, name, Level.READY, f"{PROGRAM} build with {BUILDKIT}")


def _runs(probes: Probes) -> Finding:
    if probes.runs_error:
        return Finding(
            "Files", "runs", Level.BAD, probes.runs_error, "set PHALANX_RUNS_DIR to a folder of yours"
        )
    words = f"{probes.runs}, {size(probes.runs_free)} free"
    if probes.runs_free < LOW_DISK:
        return Finding(
            "Files", "runs", Level.WARN, words, "logs are kept whole: make room, or set PHALANX_RUNS_DIR"
        )
    return Finding("Files", "runs", Level.READY, words)


def _sockets(probes: Probes) -> Finding:
    if probes.socket_error:
        return Finding(
            "Files", "sockets", Level.BAD, probes.socket_error, "set XDG_RUNTIME_DIR to a folder of yours"
        )
    return Finding("Files", "sockets", Level.READY, "control sockets can be made")


# --- probes --------------------------------------------------------------------------------------------


def probe(runs: Path, environ: Mapping[str, str] = os.environ) -> Probes:
    """Look at this machine. Raises nothing: what cannot be looked at is said in the probes."""
    slurm, slurm_error = _slurm_version()
    runs_error, free = _writable(runs)
    return Probes(
        version=VERSION,
        machine=f"{platform.system().lower()} {platform.machine()}",
        slurm=slurm,
        slurm_error=slurm_error,
        job_id=environ.get("SLURM_JOB_ID", ""),
        ssh=shutil.which("ssh") or "",
        engines={"docker": _docker(environ), "podman": _podman(environ)},
        builder=_builder(environ),
        runs=str(runs),
        runs_error=runs_error,
        runs_free=free,
        socket_error=_socket_trouble(environ),
    )


def _slurm_version() -> tuple[str, str]:
    if shutil.which("srun") is None:
        return "", ""
    try:
        done = subprocess.run(
            ["sinfo", "--version"], capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return "", f"srun is here, but sinfo does not answer: {error}"
    if done.returncode == 0:
        return done.stdout.strip(), ""
    words = done.stderr.strip().splitlines() or [f"sinfo ended with {done.returncode}"]
    return "", f"srun is here, but no cluster answers ({words[-1]})"


def _docker(environ: Mapping[str, str]) -> str:
    host = environ.get("DOCKER_HOST", "")
    if host and not host.startswith("unix://"):
        return f"!DOCKER_HOST is {host}: phalanx speaks to unix sockets only"
    path = host.removeprefix("unix://") or DOCKER_SOCKET
    return _engine_version(path)


def _podman(environ: Mapping[str, str]) -> str:
    folder = environ.get("XDG_RUNTIME_DIR", "")
    places = [f"{folder}/podman/podman.sock"] if folder else []
    for path in [*places, "/run/podman/podman.sock"]:
        version = _engine_version(path)
        if version:
            return version
    return ""


def _builder(environ: Mapping[str, str]) -> str:
    """What the client builds with, asked as a build asks it."""
    if shutil.which(PROGRAM, path=environ.get("PATH")) is None:
        return ""
    words = ""
    for wanted in ("0",) if environ.get("DOCKER_BUILDKIT") == "0" else ("1", "0"):
        env = {**environ, "DOCKER_BUILDKIT": wanted}
        try:
            done = subprocess.run(
                HELP_ARGV, env=env, capture_output=True, text=True, timeout=COMMAND_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"!cannot run {PROGRAM}: {getattr(error, 'strerror', None) or error}"
        if done.returncode == 0:
            mounts = wanted == "1" and builder_of("", done.stdout).buildkit
            return BUILDKIT if mounts else CLASSIC
        words = next(iter(done.stderr.strip().splitlines()), f"it ended with {done.returncode}")
    return f"!{PROGRAM} build does not work: {words}"


def _engine_version(path: str) -> str:
    """The version that an engine's API gives; "" for no socket, "!" and why for one that does not answer."""
    import json

    if not Path(path).exists():
        return ""
    connection = http.client.HTTPConnection("engine", timeout=COMMAND_S)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
        stream.settimeout(COMMAND_S)
        try:
            stream.connect(path)
            connection.sock = stream
            connection.request("GET", "/version")
            document = json.loads(connection.getresponse().read())
            return str(document.get("Version", "unknown version"))
        except PermissionError:
            return f"!{path} {_CLOSED}"
        except (OSError, http.client.HTTPException, ValueError) as error:
            return f"!{path} is there, but no engine answers: {error}"


def _writable(runs: Path) -> tuple[str, int]:
    place = runs
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        return f"cannot write to {place}", 0
    try:
        return "", shutil.disk_usage(place).free
    except OSError as error:
        return f"cannot look at {place}: {error.strerror}", 0


def _socket_trouble(environ: Mapping[str, str]) -> str:
    folder = Path(environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - the fallback that the controller has
    if os.access(folder, os.W_OK | os.X_OK):
        return ""
    return f"cannot make sockets in {folder}"
