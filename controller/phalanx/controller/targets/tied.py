"""Runs a command that ends with its parent: ``python -I -S tied.py PARENT_PID COMMAND...``

A salloc whose controller has died would wait on, get nodes, and leave them to nobody until the time limit.
Told to end while it waits, it takes its request back; so the kernel is asked to tell this program
(prctl(2), PR_SET_PDEATHSIG), which tells salloc. Again and again, and at last with KILL: a salloc that is
told in the wrong moment withdraws its request, but then waits for ever (seen on Slurm 22.05). A program of
its own, because code between fork and exec of a process with threads can deadlock.
"""

import ctypes
import os
import signal
import sys
from types import FrameType

PR_SET_PDEATHSIG = 1
#: Seconds between TERMs, and how many there are before KILL.
AGAIN_S, TERMS = 0.5, 6


def main(parent: int, command: list[str]) -> int:
    """Run the command to its end; its exit status, 128 and more for a signal."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        return 1
    # Until there is a child to tell, the signal waits.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        child = os.posix_spawnp(command[0], command, os.environ, setsigmask=())
    except OSError as error:
        sys.stderr.write(f"{command[0]}: error: {error.strerror}\n")
        return 127
    told = 0

    def tell(number: int, frame: FrameType | None) -> None:
        nonlocal told
        told += 1
        os.kill(child, signal.SIGTERM if told <= TERMS else signal.SIGKILL)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_S)

    signal.signal(signal.SIGTERM, tell)
    signal.signal(signal.SIGALRM, tell)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    # Not reaped before all signals are off: its number stays its own until then.
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
