"""The least that moves a tar.

``serve ADDRESS PORT TAR`` sends it to everyone who connects; ``take PARENTS PORT TAR`` on each node receives
it from its parent, writes it and forwards it at once. PARENTS has a name for each node in the order of ranks:
``login,n1,n2`` is a chain, ``login,login,login`` a star. Nothing is verified, resumed or secured. Nodes get
this text on the command line of python, so it takes the standard library only.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

BLOCK = 1024 * 1024
#: Nodes start within seconds of each other.
PATIENCE_S = 30.0


def serve(address: str, port: int, tar: str) -> None:
    """Until it is killed."""
    with socket.create_server((address, port)) as listener:
        while True:
            taker, _ = listener.accept()
            threading.Thread(target=send, args=(taker, tar), daemon=True).start()


def send(taker: socket.socket, tar: str) -> None:
    """All of the file."""
    with taker, open(tar, "rb") as file:  # noqa: PTH123
        taker.sendfile(file)


def take(parents: list[str], port: int, tar: str) -> None:
    """Be one node."""
    here, parent = os.uname().nodename, parents[int(os.environ["SLURM_PROCID"])]
    with socket.create_server(("", port)) as listener, reach(parent, port) as source:
        listener.settimeout(PATIENCE_S)
        takers = [listener.accept()[0] for _ in range(parents.count(here))]
        with open(tar, "wb") as file:  # noqa: PTH123
            while block := source.recv(BLOCK):
                file.write(block)
                for taker in takers:
                    taker.sendall(block)
        for taker in takers:
            taker.close()


def reach(parent: str, port: int) -> socket.socket:
    """A connection to a parent that may not be there yet."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return socket.create_connection((parent, port), timeout=PATIENCE_S)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]), sys.argv[4])
    else:
        take(sys.argv[2].split(","), int(sys.argv[3]), sys.argv[4])
