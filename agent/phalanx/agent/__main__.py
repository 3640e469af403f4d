"""The door of the agent: ``phalanx-agent run ...`` and ``phalanx-agent --version``.

This file is both ``phalanx.agent.__main__`` and the root of the one-file agent. It is read by whatever Python
a node has, so its first lines are such that an old one can still say what it lacks; and it looks at the file
it came in before it runs more of it. Everything else is imported when it is needed.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 - a person may have chosen this interpreter with --python
    sys.exit(
        "phalanx-agent: cannot start: %s is Python %d.%d, and the agent needs 3.11 or newer; "  # noqa: UP031
        "pass --agent-python PATH" % ((sys.executable,) + sys.version_info[:2])  # noqa: RUF005
    )

import os
import stat

USAGE = "usage: phalanx-agent [--python PATH] run [OPTION...] | --version"

#: sysexits.h: EX_USAGE.
EX_USAGE = 64


def version() -> str:
    """What ``--version`` prints: the release, the protocol and the interpreter."""
    from phalanx.protocol import VERSION as PROTOCOL
    from phalanx.protocol.release import VERSION

    python = ".".join(str(part) for part in sys.version_info[:3])
    return f"phalanx-agent {VERSION} (protocol {PROTOCOL}, Python {python})"


def distrust(path: str, uid: int) -> str:
    """Why code in ``path`` must not be run by ``uid``, or "": someone else could have put it there."""
    try:
        found = os.stat(path)  # noqa: PTH116 - pathlib costs a tenth of the start
    except OSError as error:
        return f"{path}: {error.strerror}"
    if found.st_uid not in (uid, 0):
        return f"{path} belongs to uid {found.st_uid}, not to uid {uid} or root"
    if stat.S_ISREG(found.st_mode) and found.st_mode & 0o022:
        return f"{path} can be written by others; run `chmod go-w {path}`"
    return ""


def main(argv: "list[str]") -> int:
    """Run the agent with the arguments after the program's name; the exit status."""
    if argv[:1] == ["--python"]:  # already obeyed by the shell that started this
        argv = argv[2:]
    doubt = distrust(sys.path[0], os.geteuid()) if __package__ == "" else ""
    if doubt:
        sys.stderr.write(f"phalanx-agent: cannot start on {os.uname().nodename}: {doubt}\n")
        return EX_USAGE
    if argv == ["--version"]:
        sys.stdout.write(version() + "\n")
        return 0
    if argv[:1] != ["run"]:
        sys.stderr.write(USAGE + "\n")
        return EX_USAGE
    from phalanx.agent.main import main as run

    return run(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
