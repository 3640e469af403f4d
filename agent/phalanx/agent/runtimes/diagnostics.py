"""What a person wants to see of a case that went wrong, taken before it is torn down.

All from /proc, so that it works on a node where the engine hangs and no tool is installed.
"""

from __future__ import annotations

import os
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from phalanx.agent.runtimes import processes
from phalanx.agent.runtimes.cgroup import MemoryGroup, size
from phalanx.agent.runtimes.log_ends import LogFolder, last_lines, log_ends, printable
from phalanx.agent.runtimes.spool import ERR, OUT

#: The most text that is ever returned, in bytes.
REPORT_BYTES = 384 * 1024

_SECTION_BYTES = 64 * 1024
_MOST_PROCESSES, _MOST_SOCKETS, _MOST_STREAMS = 300, 100, 32
_MEMINFO = (
    "MemTotal",
    "MemFree",
    "MemAvailable",
    "Shmem",
    "SwapTotal",
    "SwapFree",
    "Committed_AS",
    "HugePages",
)
_OOM_WORDS = ("out of memory", "oom-kill", "oom_reaper", "killed process")

#: linux/include/net/tcp_states.h
_TCP_STATES = dict(
    enumerate(
        (
            *("ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT"),
            *("CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING"),
        ),
        start=1,
    )
)


def report(
    pids: Iterable[int], spool: Path, logs: Iterable[LogFolder] = (), memory: MemoryGroup | None = None
) -> str:
    """Every section, each with its own bound. Never raises: a section that fails says why.

    ``memory``: the control group that limits the case's memory, as it was found while the case lived.
    """
    known = list(pids)
    sections: list[tuple[str, Callable[[], str]]] = [
        ("processes", lambda: _processes(known)),
        ("sockets (tcp)", lambda: _sockets(known)),
        ("memory of the node", _memory),
        ("memory of the container", lambda: _group(memory)),
        ("kernel: out of memory", _kernel_oom),
        ("ends of output", lambda: _tails(spool)),
        *((f"ends of logs in {folder.title}", partial(log_ends, folder)) for folder in logs),
    ]
    text = "".join(f"== {title} ==\n{_bounded(section)}\n" for title, section in sections)
    return text.encode()[:REPORT_BYTES].decode("utf-8", "ignore")


def _bounded(section: Callable[[], str]) -> str:
    try:
        text = section()
    except (OSError, ValueError, IndexError, struct.error) as error:
        return f"(not available: {error})\n"
    return text.encode("utf-8", "replace")[:_SECTION_BYTES].decode("utf-8", "ignore") or "(none)\n"


def _processes(pids: list[int]) -> str:
    ticks, page = os.sysconf("SC_CLK_TCK"), os.sysconf("SC_PAGE_SIZE")
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    rows = [f"{'PID':>8} {'PPID':>8} S {'RSS':>9} {'CPU':>8} {'AGE':>8} {'THR':>4} WAITS-IN         COMMAND"]
    for pid in sorted(pids)[:_MOST_PROCESSES]:
        process = processes.read(pid)
        if process is None:
            continue
        rows.append(
            f"{pid:>8} {process.parent:>8} {process.state} {process.rss_pages * page >> 20:>7}Mi "
            f"{process.cpu_ticks / ticks:>7.1f}s {up - process.started / ticks:>7.0f}s {process.threads:>4} "
            f"{_word(pid, 'wchan'):<16} {_command(pid) or f'[{process.name}]'}"
        )
    if len(pids) > _MOST_PROCESSES:
        rows.append(f"... and {len(pids) - _MOST_PROCESSES} more")
    return "\n".join(rows) + "\n"


def _word(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text()[:16] or "-"
    except OSError:
        return "-"


def _command(pid: int) -> str:
    try:
        with Path(f"/proc/{pid}/cmdline").open("rb") as handle:
            line = handle.read(300).replace(b"\0", b" ").decode("utf-8", "backslashreplace").strip()
    except OSError:
        return ""
    return printable(line)


def _sockets(pids: list[int]) -> str:
    """Sockets of the network namespace that the first of the processes lives in."""
    rows: list[str] = []
    states: Counter[str] = Counter()
    for pid in pids[:1]:
        for family in ("tcp", "tcp6"):
            for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
                fields = line.split()
                state = _TCP_STATES.get(int(fields[3], 16), fields[3])
                states[state] += 1
                if state != "TIME_WAIT" and len(rows) < _MOST_SOCKETS:
                    rows.append(f"{state:<12} {address(fields[1]):<24} {address(fields[2])}")
    return (
        ", ".join(f"{count} {state}" for state, count in states.most_common()) + "\n" + "\n".join(rows) + "\n"
    )


def address(text: str) -> str:
    """An address of /proc/net/tcp (hexadecimal, words in host order) as people write it."""
    host, _, port = text.partition(":")
    words = bytes.fromhex(host)
    if len(words) == 4:
        return f"{socket.inet_ntop(socket.AF_INET, words[::-1])}:{int(port, 16)}"
    swapped = b"".join(words[at : at + 4][::-1] for at in range(0, 16, 4))
    return f"[{socket.inet_ntop(socket.AF_INET6, swapped)}]:{int(port, 16)}"


def _memory() -> str:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return "\n".join(line for line in lines if line.startswith(_MEMINFO)) + "\n"


def _group(group: MemoryGroup | None) -> str:
    """The limit and what came of it: also told where the kernel's log is closed to this user."""
    if group is None or not group.directory.exists():
        return ""
    limit, kills = group.limit_bytes(), group.kills()
    killed = f"{kills} processes killed by the kernel for memory"
    return f"limit {size(limit) if limit else 'none'}, {killed}\n"


def _kernel_oom() -> str:
    """Lines of the kernel's log about memory, read without waiting for more."""
    found: list[str] = []
    descriptor = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(descriptor, 8192).decode("utf-8", "replace")
            except BlockingIOError:
                break
            except BrokenPipeError:
                continue  # records were overwritten meanwhile; the next read goes on behind them
            head, _, message = record.partition(";")
            line = message.partition("\n")[0]
            if any(word in line.lower() for word in _OOM_WORDS):
                microseconds = int(head.split(",")[2])
                found.append(f"[{microseconds / 1e6:12.3f}] {line}")
    finally:
        os.close(descriptor)
    return "\n".join(found[-40:]) + ("\n" if found else "")


def _tails(spool: Path) -> str:
    streams = sorted(path for path in spool.glob("*/*/*") if path.name in (OUT, ERR))
    texts = []
    for path in streams[:_MOST_STREAMS]:
        lines = tail(path)
        if lines:
            texts.append(f"-- {path.relative_to(spool)}\n{lines}\n")
    return "".join(texts)


def tail(path: Path) -> str:
    """The last lines of a file, at most 30 and 4 KiB, whatever is in it."""
    try:
        with path.open("rb") as handle:
            return last_lines(handle)
    except OSError as error:
        return f"(not readable: {error})"
