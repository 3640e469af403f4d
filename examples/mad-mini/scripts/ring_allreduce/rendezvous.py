"""How the ranks find each other: rank 0 listens, the others tell it where they listen, all get the list.

Every rank opens a port of its own first, so that a neighbour can connect as soon as it knows the address.
Lines of JSON, bounded in length; a stranger on the port is sent away and counts for nothing.
"""

import json
import os
import socket
import time

CONNECT_S = 60.0
LINE_S = 5.0
LINE_LIMIT = 65536
#: What tells ranks of this run from a stranger that finds the port.
RUN = os.environ.get("PHALANX_RUN_ID", "ring")


def listen(port=0, backlog=128):
    """A listening socket on all addresses, IPv6 as well where there is any."""
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(
                ("", port), family=socket.AF_INET6, backlog=backlog, dualstack_ipv6=True
            )
        except OSError:
            pass  # IPv6 is compiled in and switched off
    return socket.create_server(("", port), backlog=backlog)


def connect(address, port, seconds=CONNECT_S):
    """Connect, trying again while the other side may still be starting. Raises TimeoutError in words."""
    end = time.monotonic() + seconds
    pause = 0.05
    while True:
        try:
            link = socket.create_connection((address, port), timeout=max(0.1, end - time.monotonic()))
        except OSError as error:
            if time.monotonic() + pause > end:
                raise TimeoutError(f"cannot connect to {address}:{port} in {seconds:g} s: {error}") from error
            time.sleep(pause)
            pause = min(pause * 2, 1.0)
            continue
        link.settimeout(None)
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return link


def send_line(link, value):
    """One JSON line."""
    link.sendall(json.dumps(value).encode() + b"\n")


def read_line(link, seconds=LINE_S):
    """One JSON line of at most LINE_LIMIT bytes, and not a byte more. Raises ValueError or TimeoutError."""
    end = time.monotonic() + seconds
    data = b""
    while not data.endswith(b"\n"):
        link.settimeout(max(0.01, end - time.monotonic()))
        part = link.recv(1)  # what follows the line belongs to the next reader
        if not part or len(data) > LINE_LIMIT:
            raise ValueError("no whole line came")
        data += part
    link.settimeout(None)
    return json.loads(data)


def exchange(world, ring_port):
    """Addresses of all ranks' ring ports, by rank. Raises TimeoutError or OSError."""
    if world.rank == 0:
        return _host(world, ring_port)
    link = connect(world.master_addr, world.master_port)
    with link:
        send_line(link, {"run": RUN, "rank": world.rank, "port": ring_port})
        addresses = read_line(link, CONNECT_S)
    return [tuple(address) for address in addresses]


def _host(world, ring_port):
    found = {0: (world.master_addr, ring_port)}
    guests = {}
    end = time.monotonic() + CONNECT_S
    with listen(world.master_port) as server:
        while len(found) < world.size:
            missing = sorted(set(range(world.size)) - set(found))
            server.settimeout(max(0.1, end - time.monotonic()))
            try:
                guest, source = server.accept()
            except TimeoutError as error:
                raise TimeoutError(f"ranks {missing} did not come within {CONNECT_S:g} s") from error
            rank, port = _introduce(guest, world)
            if rank is None or rank in found:
                guest.close()
                continue
            found[rank] = (source[0], port)
            guests[rank] = guest
        addresses = [found[rank] for rank in range(world.size)]
        for guest in guests.values():
            with guest:
                send_line(guest, addresses)
    return addresses


def _introduce(guest, world):
    """The rank and ring port of a guest, (None, 0) for a stranger."""
    try:
        hello = read_line(guest)
        rank, port = int(hello["rank"]), int(hello["port"])
        known = hello["run"] == RUN and 0 < rank < world.size and 0 < port < 65536
    except (OSError, ValueError, KeyError, TypeError):
        return None, 0
    return (rank, port) if known else (None, 0)
