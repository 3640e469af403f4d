"""Where the ``phalanx`` command begins: Ctrl-C while its modules are imported ends it as the shell expects.

Python would answer with a traceback of whatever module it was in. What runs a verb hears Ctrl-C itself. The
standard streams of the process are seen to here as well: who calls a verb from Python keeps theirs.
"""

from __future__ import annotations

import signal


def main() -> None:
    """Entry point of the console script. Ends the process."""
    # Ignored by who started us (a shell's background job, nohup) stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from phalanx.controller.cli import streams
    from phalanx.controller.cli.main import main as answer

    streams.guard()
    answer()
