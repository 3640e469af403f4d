"""Output of ``phalanx exec``: live with a prefix, or gathered: nodes that said the same together."""

from __future__ import annotations

import sys

from phalanx.controller.logs.clean import clean
from phalanx.controller.logs.reader import Block, Times
from phalanx.controller.logs.show import Look, Shower
from phalanx.controller.logs.sources import Source
from phalanx.controller.nodesets import counted, natural
from phalanx.controller.runs.echoes import end_words
from phalanx.protocol.messages import NODE_LEVEL, Cause

#: A line longer than this is given out in parts.
HOLD = 64 * 1024


class Ends:
    """How the command ended where; the summary that is always told."""

    def __init__(self) -> None:
        self.nodes: tuple[str, ...] = ()
        self._bad: dict[str, list[str]] = {}
        self._ok = 0

    def started(self, nodes: tuple[str, ...]) -> None:
        """The command was sent there."""
        self.nodes = nodes

    def exited(self, node: str, status: int, cause: Cause, detail: str) -> None:
        """It ended on a node."""
        if not status and cause is Cause.EXITED:
            self._ok += 1
            return
        words = end_words(status, cause)
        self._bad.setdefault(f"{words}: {detail}" if detail else words, []).append(node)

    def tell(self, always: bool) -> None:
        """The nodes on which it ended badly, alike ones together, and one line for all."""
        for words, nodes in self._bad.items():
            _say(f"phalanx: {counted(natural(nodes))}: {words}")
        if self._bad or always:
            failed = sum(len(nodes) for nodes in self._bad.values())
            text = f"{len(self.nodes)} nodes: {self._ok} ok"
            _say(text + (f", {failed} failed" if failed else ""))


class Streamed(Ends):
    """Each line as it comes, with its node before it when there is more than one."""

    def __init__(self, look: Look) -> None:
        super().__init__()
        self._look = look
        self._held: dict[tuple[str, str], bytes] = {}
        self._shower = Shower(look, lambda source: NODE_LEVEL)

    def started(self, nodes: tuple[str, ...]) -> None:
        """Prefixes depend on how many nodes there are."""
        super().started(nodes)
        width = max((len(node) for node in nodes), default=0)
        prefix = "host" if len(nodes) > 1 else "none"
        look = Look(prefix, self._look.tty, self._look.color, self._look.unicode, False, width)
        self._shower = Shower(look, lambda source: NODE_LEVEL)

    def take(self, node: str, output: str, data: bytes) -> None:
        """Show what is whole of it; the rest waits for its line's end."""
        data = self._held.pop((node, output), b"") + data
        end = data.rfind(b"\n") + 1
        if len(data) - end > HOLD:
            end = len(data)
        if data[end:]:
            self._held[node, output] = data[end:]
        self._show(node, output, data[:end])

    def finish(self, columns: int) -> None:
        """Unfinished last lines, then the summary if there is something to tell."""
        for (node, output), data in self._held.items():
            self._show(node, output, data)
        self._held.clear()
        self.tell(always=False)

    def _show(self, node: str, output: str, data: bytes) -> None:
        if not data:
            return
        source = Source("", node, "", "", NODE_LEVEL, output)
        stream = sys.stderr.buffer if output == "err" else sys.stdout.buffer
        stream.write(self._shower.plain(source, Block(0, data, begins=True), Times()))
        stream.flush()


class Gathered(Ends):
    """Nothing until the end, then each different output once, under the nodes that gave it."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[str, bytearray] = {}

    def take(self, node: str, output: str, data: bytes) -> None:
        """Both streams of a node, in the order in which they came."""
        self._said.setdefault(node, bytearray()).extend(data)

    def finish(self, columns: int) -> None:
        """The groups, the largest first, and the summary."""
        groups: dict[bytes, list[str]] = {}
        for node in self.nodes:
            groups.setdefault(bytes(self._said.get(node, b"")), []).append(node)
        for data, nodes in sorted(groups.items(), key=lambda item: -len(item[1])):
            if not data:
                continue
            rule = "-" * 15
            text = clean(data).decode("utf-8", "backslashreplace")
            sys.stdout.write(
                f"{rule}\n{counted(natural(nodes))}\n{rule}\n{text}" + ("" if text.endswith("\n") else "\n")
            )
        sys.stdout.flush()
        self.tell(always=True)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
