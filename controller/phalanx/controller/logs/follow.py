"""Showing the logs of a run as they grow: which files, how far each was shown, in which form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from phalanx.controller.logs.reader import GrowingFile, Times, line_start, read_times, tail_offset
from phalanx.controller.logs.show import Render
from phalanx.controller.logs.sources import Selection, Source, find, parse


class LogTail:
    """The selected streams of one run, each with the place up to which it was shown.

    ``render`` is asked for with the first bytes: the prefix depends on what the run turns out to be.
    """

    def __init__(
        self,
        run: Path,
        selection: Selection,
        render: Callable[[], Render],
        *,
        only_case: Callable[[], str],
        timed: bool = False,
    ) -> None:
        self._run = run
        self._selection = selection
        self._make_render = render
        self._render: Render | None = None
        self._only_case = only_case
        self._timed = timed
        self._files: dict[str, tuple[Source, GrowingFile] | None] = {}

    def start(self, tail: int | None = None, since: float | None = None) -> None:
        """Where to begin in files that are there already: the last ``tail`` lines, or what came ``since``."""
        for path, size in find(self._run, self._only_case()).items():
            known = self._known(path)
            if known is None:
                continue
            file = known[1]
            offset = 0
            if since is not None:
                offset = line_start(file.path, read_times(file.path).since(since, size))
            if tail is not None:
                offset = max(offset, tail_offset(file.path, tail, size))
            file.offset = offset

    def advance(
        self, path: str, size: int | None = None, final: bool = False
    ) -> Iterator[tuple[Source, bytes]]:
        """What is new in a file up to ``size`` bytes, ready to be written, in blocks."""
        known = self._known(path)
        if known is None:
            return
        source, file = known
        for block in file.blocks(size, final):
            if self._render is None:
                self._render = self._make_render()
            times = read_times(file.path) if self._timed else Times()
            data = self._render(source, block, times)
            if data:
                yield source, data

    def drain(self, final: bool = True) -> Iterator[tuple[Source, bytes]]:
        """What is new in every file there is; ``final``: the streams are over."""
        for path, size in find(self._run, self._only_case()).items():
            yield from self.advance(path, size, final)

    def _known(self, path: str) -> tuple[Source, GrowingFile] | None:
        if path not in self._files:
            source = parse(path, self._only_case())
            taken = source is not None and self._selection.takes(source)
            self._files[path] = (
                (source, GrowingFile(self._run / path)) if source is not None and taken else None
            )
        return self._files[path]
