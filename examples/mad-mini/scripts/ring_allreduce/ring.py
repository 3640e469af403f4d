"""A ring of ranks and the all-reduce over it: each sends to the next and receives from the one before.

The vector is cut into as many chunks as there are ranks. In n-1 steps of reduce-scatter every rank comes to
own the sum of one chunk, in n-1 steps of all-gather the sums go round. Each rank sends 2(n-1)/n of the
vector, whatever n is. A thread does the sending: a full socket buffer never stops two neighbours for good.
"""

import operator
import queue
import threading
from array import array

import rendezvous

LINK_S = 300.0


class Ring:
    """The two links of a rank. ``close`` ends the sending thread."""

    def __init__(self, world, addresses, server):
        self.world = world
        after = (world.rank + 1) % world.size
        self._sends = queue.Queue()
        self._broken = None
        self._next = rendezvous.connect(*addresses[after])
        rendezvous.send_line(self._next, {"run": rendezvous.RUN, "rank": world.rank})
        self._previous = self._accept(server, (world.rank - 1) % world.size)
        for link in (self._next, self._previous):
            link.settimeout(LINK_S)
        self._sender = threading.Thread(target=self._send_all, name="sender to the next rank", daemon=True)
        self._sender.start()

    def _accept(self, server, before):
        server.settimeout(rendezvous.CONNECT_S)
        while True:
            link, _ = server.accept()
            try:
                hello = rendezvous.read_line(link)
            except (OSError, ValueError):
                link.close()
                continue
            if isinstance(hello, dict) and hello.get("run") == rendezvous.RUN and hello.get("rank") == before:
                return link
            link.close()

    def _send_all(self):
        while (data := self._sends.get()) is not None:
            try:
                if self._broken is None:
                    self._next.sendall(data)
            except OSError as error:
                self._broken = error
            finally:
                self._sends.task_done()
        self._sends.task_done()

    def exchange(self, outgoing, incoming):
        """Send one buffer to the next rank while another is filled from the one before. Raises OSError."""
        self._sends.put(outgoing)
        view = memoryview(incoming).cast("B")
        got = 0
        while got < len(view):
            count = self._previous.recv_into(view[got:])
            if not count:
                raise ConnectionError(f"rank {(self.world.rank - 1) % self.world.size} went away")
            got += count
        self._sends.join()
        if self._broken is not None:
            raise ConnectionError(
                f"rank {(self.world.rank + 1) % self.world.size} went away"
            ) from self._broken

    def barrier(self):
        """Meet by a byte that goes round twice: in the first round all arrive, in the second all may go."""
        token = bytearray(1)
        for _ in range(2 * self.world.size):
            self.exchange(bytes(1), token)

    def allreduce(self, vector):
        """Replace an array of doubles by the element-wise sum over all ranks."""
        size, rank = self.world.size, self.world.rank
        bounds = [len(vector) * chunk // size for chunk in range(size + 1)]
        view = memoryview(vector)

        def chunk(number):
            number %= size
            return view[bounds[number] : bounds[number + 1]]

        for step in range(size - 1):
            mine = chunk(rank - step - 1)
            received = array("d", bytes(8 * len(mine)))
            self.exchange(chunk(rank - step).cast("B"), received)
            mine[:] = array("d", map(operator.add, mine, received))
        for step in range(size - 1):
            self.exchange(chunk(rank + 1 - step).cast("B"), chunk(rank - step))

    def close(self):
        """End the thread and both links."""
        self._sends.put(None)
        self._sender.join()
        self._next.close()
        self._previous.close()


class Alone:
    """The ring of one rank: the sum of one vector is itself."""

    def barrier(self):
        """Nobody to meet."""

    def allreduce(self, vector):
        """Add nothing, at the cost of an addition."""
        vector[:] = array("d", map(operator.add, vector, array("d", bytes(8 * len(vector)))))

    def close(self):
        """Nothing to close."""
