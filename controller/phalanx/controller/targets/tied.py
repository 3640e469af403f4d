"""Runs a command that ends with its parent: ``python -I -S tied.py PARENT_PID COMMAND...``

A salloc whose controller has died would wait on, get nodes, and leave them to nobody until the time limit.
Told to end while it waits, it takes its request back; so the kernel is asked to tell it (prctl(2),
PR_SET_PDEATHSIG, which survives execve(2)). A program of its own, because code between fork and exec of a
process with threads can deadlock.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        sys.exit(1)
    try:
        os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - it becomes the command; an argv, no shell
    except OSError as error:
        sys.stderr.write(f"{sys.argv[2]}: error: {error.strerror}\n")
        sys.exit(127)
