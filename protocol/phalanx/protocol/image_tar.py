"""Tar files of images, as values: the blocks around a file that is streamed, and what lies where in one.

Archives come from anywhere, and Python's tarfile trusts the sizes in their headers with its memory and its
loops; here every read is of one block or of a bounded record, and each step goes forward. (POSIX.1-2017 pax,
"ustar Interchange Format"; GNU tar manual, "Basic Tar Format", for long names and sizes from 8 GiB on.)
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from dataclasses import dataclass

from .image import ImageFormatError

#: Bytes from an offset on; fewer at the end of the file. Raises OSError as it likes.
Read = Callable[[int, int], bytes]

BLOCK = tarfile.BLOCKSIZE
#: Two empty blocks: no member follows.
END = bytes(2 * BLOCK)
#: Members that are looked at, and bytes of the records that give a member a long name.
_MEMBERS, _RECORD = 16_384, 64 * 1024
#: Steps from link to link.
_LINKS = 8
_SIZE_MAX = 1 << 62


@dataclass(frozen=True, slots=True)
class Member:
    """Bytes of a file in an archive, or the name of what a link means (never one outside of the archive)."""

    name: str
    offset: int
    size: int
    link: str = ""


def header(name: str, size: int) -> bytes:
    """What precedes a file of ``size`` bytes. The same for the same name and size always."""
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.GNU_FORMAT)


def padding(size: int) -> bytes:
    """What follows a file of ``size`` bytes."""
    return bytes(-size % BLOCK)


def clean(path: str) -> str:
    """A path in an archive without ``.`` and ``..``; "" for one that leads out of it."""
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if not kept:
                return ""
            kept.pop()
        elif part not in ("", "."):
            kept.append(part)
    return "/".join(kept)


def resolve(members: dict[str, Member], path: str) -> Member:
    """The file that a path means, links followed. Raises ImageFormatError when there is none."""
    name = clean(path)
    for _ in range(_LINKS):
        found = members.get(name)
        if found is None:
            break
        if not found.link:
            return found
        name = found.link
    raise ImageFormatError(f"its member {path[:120]!r} is not there")


def members(read: Read, total: int) -> dict[str, Member]:
    """Files and links of an uncompressed tar of ``total`` bytes, by clean name; the last of a name counts.

    Raises ImageFormatError for what is no tar, is cut short, or claims what cannot be.
    """
    found: dict[str, Member] = {}
    offset, extra, records = 0, dict[str, str](), 0
    while offset < total:
        block = read(offset, BLOCK)
        if block == bytes(BLOCK):
            return found
        entry = _entry(block, offset)
        offset += BLOCK
        size = _size(entry, extra, offset)
        end = offset + size + -size % BLOCK
        if not 0 <= size < _SIZE_MAX or offset + size > total:
            raise ImageFormatError(f"it is cut short or damaged: a member at {offset} claims {size} bytes")
        if entry.type in _RECORDS:
            extra |= _record(entry.type, read, offset, size)
        else:
            if name := clean(extra.get("path", entry.name)):
                found[name] = Member(name, offset, size, _link(entry, extra, name))
            extra = {}
        records += 1
        if records > _MEMBERS:
            raise ImageFormatError(f"it has more than {_MEMBERS} members; no image archive has")
        offset = end
    if not found:
        raise ImageFormatError("it is empty")
    return found


_PAX, _LONG_NAME, _LONG_LINK = tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK
_RECORDS = (_PAX, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, _LONG_NAME, _LONG_LINK)
_HEADER_ONLY = (
    *(tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.DIRTYPE),
    *(tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE),
)


def _entry(block: bytes, offset: int) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError) as error:
        raise ImageFormatError(f"it is no tar, or damaged at {offset}: {error}") from error


def _size(entry: tarfile.TarInfo, extra: dict[str, str], offset: int) -> int:
    """Bytes that follow the header; links and directories have none, whatever they say."""
    if entry.issparse() or any(key.startswith("GNU.sparse.") for key in extra):
        raise ImageFormatError(f"a sparse member at {offset}; make the archive without them")
    if entry.type in _HEADER_ONLY:
        return 0
    told = extra.get("size", "") if entry.type not in _RECORDS else ""
    return _number(told) if told else entry.size


def _number(text: str) -> int:
    if not text.isdecimal() or len(text) > 20:
        raise ImageFormatError(f"a member has the size {text[:40]!r}")
    return int(text)


def _record(kind: bytes, read: Read, offset: int, size: int) -> dict[str, str]:
    """What a record says of the member that follows it."""
    if size > _RECORD:
        raise ImageFormatError(f"a record of {size} bytes at {offset}; names have no more than {_RECORD}")
    data = read(offset, size)
    if kind == _LONG_NAME:
        return {"path": _text(data.split(b"\0")[0])}
    if kind == _LONG_LINK:
        return {"linkpath": _text(data.split(b"\0")[0])}
    return _pax(data) if kind != tarfile.XGLTYPE else {}


def _pax(data: bytes) -> dict[str, str]:
    """Records "LENGTH KEYWORD=VALUE\\n"."""
    found = {}
    while data.strip(b"\0"):
        digits, _, _ = data[:16].partition(b" ")
        length = _number(_text(digits))
        line = data[len(digits) + 1 : length]
        keyword, equals, value = line.removesuffix(b"\n").partition(b"=")
        if not equals or length > len(data):
            raise ImageFormatError("a record of a member's name or size is damaged")
        found[_text(keyword)] = _text(value)
        data = data[length:]
    return found


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


#: What a member that is neither file nor link counts as: a link to what no member is called.
_NOTHING = "/"


def _link(entry: tarfile.TarInfo, extra: dict[str, str], name: str) -> str:
    """What a link means, "" for a file."""
    target = extra.get("linkpath", entry.linkname)
    if entry.issym():
        beside = f"{name.rpartition('/')[0]}/{target}"
        return _NOTHING if target.startswith("/") else clean(beside) or _NOTHING
    if entry.islnk():
        return clean(target) or _NOTHING
    return "" if entry.isreg() else _NOTHING
