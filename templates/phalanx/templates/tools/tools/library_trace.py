"""Calls of the ROCm libraries while a command runs: ``library_trace.py COMMAND...``, into library_trace.csv.

Which: ROCBLAS_TRACE, HIPBLASLT_TRACE, MIOPEN_TRACE, TENSILE_TRACE, RCCL_TRACE set to 1. The libraries are
told to log by variables of their own, and log between the command's own lines; their lines are counted and
kept back, all others go on as they came. What they log, by their documentation and by logs of users:

rocBLAS    ROCBLAS_LAYER, bit 2: a line for rocblas-bench (rocm.docs.amd.com/projects/rocBLAS, logging)
hipBLASLt  HIPBLASLT_LOG_MASK, bit 32: a line for hipblaslt-bench; a LOG_LEVEL would go before the mask
MIOpen     MIOPEN_ENABLE_LOGGING_CMD: a line for MIOpenDriver (.../projects/MIOpen, logging and debugging)
Tensile    TENSILE_DB, bit 0x8000: the name of the kernel (.../projects/Tensile, environment variables)
RCCL       NCCL_DEBUG=INFO, NCCL_DEBUG_SUBSYS=COLL: operation, count, types

Tried with such lines, and not yet with the libraries on a GPU.
"""

from __future__ import annotations

import csv
import os
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from wrapped_command import WrappedCommand, end_as, replace_by, say

#: Different calls that are kept apart; of more only the number is told.
MOST_KINDS = 100_000
#: Bytes of one line that are looked at, and seconds that the start of one is held back.
LONGEST_LINE = 64 * 1024
HELD_S = 0.2
#: Seconds of silence after the command's end, when something that it left holds its output open.
SILENCE_S = 1.0
CHUNK = 256 * 1024

#: "[rank3]: " and the like, which launchers put before a line.
_PREFIX = rb"^(?:[\[(][^\])]{0,80}[\])]:? ?){0,3}"
_NCCL = (
    rb"(?:\S+:\d+:\d+ \[\d+\] )?NCCL INFO (\w+): opCount \w+ sendbuff \S+ recvbuff \S+ "
    rb"(?:acc \S+ )?(count \d+ datatype \d+ op \d+ root \d+) comm \S+ (\[nranks=\d+\])"
)


def _add_bits(environ: dict[str, str], name: str, bits: int) -> None:
    try:
        known = int(environ.get(name, "") or "0", 0)
    except ValueError:
        known = 0
    environ[name] = hex(known | bits) if name == "TENSILE_DB" else str(known | bits)


def _rocblas(environ: dict[str, str]) -> None:
    _add_bits(environ, "ROCBLAS_LAYER", 2)
    for name in ("ROCBLAS_LOG_BENCH_PATH", "ROCBLAS_LOG_PATH"):
        environ.pop(name, None)  # to its stderr, where it is read


def _hipblaslt(environ: dict[str, str]) -> None:
    _add_bits(environ, "HIPBLASLT_LOG_MASK", 32)
    for name in ("HIPBLASLT_LOG_LEVEL", "HIPBLASLT_LOG_FILE"):
        environ.pop(name, None)


def _miopen(environ: dict[str, str]) -> None:
    environ["MIOPEN_ENABLE_LOGGING_CMD"] = "1"


def _tensile(environ: dict[str, str]) -> None:
    _add_bits(environ, "TENSILE_DB", 0x8000)


def _rccl(environ: dict[str, str]) -> None:
    level = environ.get("NCCL_DEBUG", "").upper()
    usual = "INIT,BOOTSTRAP,ENV," if level in ("INFO", "TRACE") else ""
    parts = environ.get("NCCL_DEBUG_SUBSYS", "")
    if level not in ("INFO", "TRACE"):
        environ["NCCL_DEBUG"] = "INFO"
    if not parts:
        environ["NCCL_DEBUG_SUBSYS"] = usual + "COLL"
    elif not {"COLL", "ALL"} & set(parts.upper().split(",")):
        environ["NCCL_DEBUG_SUBSYS"] = parts + ",COLL"
    environ.pop("NCCL_DEBUG_FILE", None)


def _bench(library: str) -> Callable[[Any], tuple[str, str, str]]:
    def call(match: Any) -> tuple[str, str, str]:
        words = _text(match.group(1))
        function = re.search(r"(?:^|\s)(?:-f|--function)\s+(\S+)", words)
        return library, function.group(1) if function else "matmul", words

    return call


def _of_miopen(match: Any) -> tuple[str, str, str]:
    kind, _, words = _text(match.group(1)).partition(" ")
    return "MIOpen", kind, words


def _of_tensile(match: Any) -> tuple[str, str, str]:
    return "Tensile", _text(match.group(1)), ""


def _of_rccl(match: Any) -> tuple[str, str, str]:
    return "RCCL", _text(match.group(1)), f"{_text(match.group(2))} nranks {_text(match.group(3))[8:-1]}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace").strip()


#: Variable that asks for a library -> how to make it log, what its lines look like, what a line says.
LIBRARIES = {
    "ROCBLAS_TRACE": (_rocblas, _PREFIX + rb"(?:\S*/)?rocblas-bench (\S.*)$", _bench("rocBLAS")),
    "HIPBLASLT_TRACE": (_hipblaslt, _PREFIX + rb"(?:\S*/)?hipblaslt-bench (\S.*)$", _bench("hipBLASLt")),
    "MIOPEN_TRACE": (
        _miopen,
        _PREFIX + rb"MIOpen\(\w+\): Command \[\w+\] \S*MIOpenDriver\S* (\S.*)$",
        _of_miopen,
    ),
    "TENSILE_TRACE": (_tensile, _PREFIX + rb"Running kernel: (\S+)$", _of_tensile),
    "RCCL_TRACE": (_rccl, _PREFIX + _NCCL, _of_rccl),
}


class Calls:
    """What was called, and how often."""

    def __init__(self, wanted: list[str]) -> None:
        self.patterns = [(re.compile(LIBRARIES[name][1]), LIBRARIES[name][2]) for name in wanted]
        self.counts: dict[tuple[str, str, str], int] = {}
        self.left_out = 0

    def take(self, line: bytes) -> bool:
        """Count a line of a library; False for any other."""
        for pattern, call_of in self.patterns:
            match = pattern.match(line)
            if match:
                self._count(call_of(match))
                return True
        return False

    def _count(self, call: tuple[str, str, str]) -> None:
        if call in self.counts or len(self.counts) < MOST_KINDS:
            self.counts[call] = self.counts.get(call, 0) + 1
        else:
            self.left_out += 1

    def write(self, path: str) -> None:
        """All at once: nobody finds half a file."""
        part = Path(path + ".part")
        counts = sorted(self.counts.items(), key=lambda one: (-one[1], one[0]))
        with part.open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(["library", "call", "times", "arguments"])
            for (library, call, arguments), times in counts:
                rows.writerow([library, call, times, arguments])
        part.replace(path)


class Stream:
    """One output of the command on its way to ours, without the libraries' lines."""

    def __init__(self, target: int, calls: Calls) -> None:
        self.target = target
        self.calls = calls
        self.held = b""

    def feed(self, data: bytes) -> None:
        """Pass on whole lines; the start of one is held back."""
        lines = (self.held + data).split(b"\n")
        self.held = lines.pop()
        kept = [line + b"\n" for line in lines if not self.calls.take(line.rstrip(b"\r"))]
        if len(self.held) > LONGEST_LINE:
            kept.append(self.held)
            self.held = b""
        self._put(b"".join(kept))

    def let_go(self) -> None:
        """Nothing more comes for now: a prompt or a progress bar is not kept waiting."""
        held, self.held = self.held, b""
        self._put(held)

    def _put(self, data: bytes) -> None:
        while data:
            try:
                data = data[os.write(self.target, data) :]
            except OSError:
                return  # nobody listens; the command goes on


def follow(child: subprocess.Popen[bytes], streams: dict[Any, Stream]) -> None:
    """Pass on what the command prints, until it has ended and its outputs are closed or silent."""
    last = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe, stream in streams.items():
            selector.register(pipe, selectors.EVENT_READ, stream)
        while selector.get_map():
            ready = selector.select(HELD_S)
            if ready:
                last = time.monotonic()
            for key, _ in ready:
                data = os.read(key.fd, CHUNK)
                key.data.feed(data)
                if not data:
                    selector.unregister(key.fileobj)
            if not ready:
                for stream in streams.values():
                    stream.let_go()
                if child.poll() is not None and time.monotonic() - last > SILENCE_S:
                    break
    for stream in streams.values():
        stream.let_go()


def output_name(environ: Any) -> str:
    """One file for each rank of a node: library_trace.csv is that of the first."""
    if environ.get("LOCAL_RANK", "0") in ("", "0"):
        return "library_trace.csv"
    return f"rank{environ.get('RANK', '')}_library_trace.csv"


def traced_environment(environ: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The libraries that are asked for, and the environment that makes them log."""
    wanted = [name for name in LIBRARIES if environ.get(name, "").lower() in ("1", "true", "yes", "on")]
    made = dict(environ)
    for name in wanted:
        LIBRARIES[name][0](made)
    return wanted, made


def main(argv: list[str]) -> None:
    """Run the command, and write what its libraries were asked to do."""
    if not argv:
        say("cannot trace libraries: expected library_trace.py COMMAND...")
        sys.exit(2)
    wanted, environ = traced_environment(dict(os.environ))
    if not wanted:
        say(f"library_trace: none of {', '.join(LIBRARIES)} is 1; nothing is traced")
        replace_by(argv)
    calls = Calls(wanted)
    command = WrappedCommand(argv)
    child = command.start(stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environ)
    follow(child, {child.stdout: Stream(1, calls), child.stderr: Stream(2, calls)})
    status = child.wait()
    path = output_name(os.environ)
    try:
        calls.write(path)
        more = f", and {calls.left_out} calls of further kinds" if calls.left_out else ""
        say(f"library_trace: {len(calls.counts)} kinds of calls in {path}{more}")
    except OSError as error:
        say(f"library_trace: cannot write {path}: {error.strerror}")
    end_as(status)


if __name__ == "__main__":
    main(sys.argv[1:])
