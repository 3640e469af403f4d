"""GPUs as AMD's tools list them: amd-smi of ROCm 6 and newer, rocm-smi of all others.

``amd-smi static --json`` is a list with one object per GPU, from amd-smi 26 on inside ``{"gpu_data":
[...]}``; sizes are ``{"value": 196592, "unit": "MB"}`` or a text, and its MB are MiB. Its ``market_name`` may
be a family's ("AMD Radeon Graphics"); the board's name is then the better one. ``rocm-smi --json`` is an
object with ``cardN`` members whose keys changed their case between releases. Both may print warnings before
the JSON.
"""

from __future__ import annotations

import json
import re
import time
from typing import Any

from .bounded import TOOL_S, ask_tool
from .gpus import AMD, Seen, Told, bus_address

AMD_SMI = ("amd-smi", "static", "--asic", "--bus", "--board", "--vram", "--json")
ROCM_SMI = ("rocm-smi", "--showproductname", "--showbus", "--showmeminfo", "vram", "--json")

_UNITS = {"b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "kib": 2**10, "mib": 2**20, "gib": 2**30}
_SIZE = re.compile(r"\s*(\d{1,15})\s*([kmg]?i?b)?\s*", re.IGNORECASE)
_CARD = re.compile(r"card(\d{1,5})")


def told_by_amd_tools() -> Told:
    """What amd-smi says now, or else rocm-smi. Five seconds at most for the two."""
    end = time.monotonic() + TOOL_S
    first = ask_tool(AMD_SMI, is_data=_is_json)
    if found := parse_amd_smi(first.text):
        return Told(AMD, tuple(found), first.complaint)
    second = ask_tool(ROCM_SMI, max(0.0, end - time.monotonic()), is_data=_is_json)
    if found := parse_rocm_smi(second.text):
        return Told(AMD, tuple(found), second.complaint)
    words = [
        one.complaint or f"{argv[0]} lists none"
        for argv, one in ((AMD_SMI, first), (ROCM_SMI, second))
        if one.there
    ]
    return Told(AMD, (), words[0] if words else "there is no amd-smi and no rocm-smi")


def _is_json(line: str) -> bool:
    return line.lstrip()[:1] in '[]{}"'


def parse_amd_smi(text: str) -> list[Seen]:
    """The GPUs in the answer of ``amd-smi static --json``; [] for anything else."""
    document = _json_in(text)
    if isinstance(document, dict):
        document = document.get("gpu_data")
    found = []
    for entry in document if isinstance(document, list) else ():
        if not isinstance(entry, dict) or type(entry.get("gpu")) is not int:
            continue
        bus, vram = _part(entry, "bus"), _part(entry, "vram")
        found.append(
            Seen(
                AMD,
                _model(_part(entry, "asic"), _part(entry, "board")),
                bus_address(_known(bus.get("bdf"))),
                _bytes(vram.get("size"), default_unit="mb"),
                "amd-smi",
                entry["gpu"],
                _target(_part(entry, "asic")),
            )
        )
    return found


def parse_rocm_smi(text: str) -> list[Seen]:
    """The GPUs in the answer of ``rocm-smi --json``; [] for anything else."""
    document = _json_in(text)
    found = []
    for card, entry in document.items() if isinstance(document, dict) else ():
        number = _CARD.fullmatch(card)
        if number is None or not isinstance(entry, dict):
            continue
        values = {key.lower(): _known(value) for key, value in entry.items()}
        model = values.get("card series", "") or values.get("device name", "") or values.get("card model", "")
        memory = _bytes(values.get("vram total memory (b)"), default_unit="b")
        bus = bus_address(values.get("pci bus", ""))
        found.append(Seen(AMD, model, bus, memory, "rocm-smi", int(number.group(1))))
    return found


def _model(asic: dict[str, Any], board: dict[str, Any]) -> str:
    market, product = _known(asic.get("market_name")), _known(board.get("product_name"))
    if market and market != "AMD Radeon Graphics" and not market.startswith("0x"):
        return market
    return product or market or _known(asic.get("target_graphics_version"))


def _target(asic: dict[str, Any]) -> str:
    target = _known(asic.get("target_graphics_version"))
    return target if target.startswith("gfx") else ""


def _json_in(text: str) -> Any:
    """The JSON document at the end of ``text``, after whatever warnings; None when there is none."""
    for match in re.finditer(r"^[\[{]", text, re.MULTILINE):
        try:
            return json.loads(text[match.start() :])
        except (ValueError, RecursionError):
            continue
    return None


def _part(entry: dict[str, Any], name: str) -> dict[str, Any]:
    part = entry.get(name)
    return part if isinstance(part, dict) else {}


def _known(value: Any) -> str:
    """The text, or "" for the ways in which the tools say that they do not know."""
    text = value.strip() if isinstance(value, str) else ""
    return "" if text.upper() in ("N/A", "UNKNOWN", "NONE") else text


def _bytes(value: Any, *, default_unit: str) -> int:
    """A size in bytes from a number, "196592 MB" or {"value": 196592, "unit": "MB"}; 0 when unknown."""
    unit = default_unit
    if isinstance(value, dict):
        unit = str(value.get("unit") or default_unit)
        value = value.get("value")
    match = _SIZE.fullmatch(str(value))
    if match is None:
        return 0
    number, own_unit = match.groups()
    return int(number) * _UNITS.get((own_unit or unit).lower(), 0)
