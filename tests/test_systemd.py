"""The units that we ship are understood by systemd, to the last key."""

from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.source import ROOT

UNITS = [path for path in sorted((ROOT / "systemd").iterdir()) if path.suffix in (".service", ".slice")]
#: systemd.unit(5), systemd.slice(5), systemd.resource-control(5): what our units use of them.
KNOWN = {
    "Unit": {"Description", "Documentation"},
    "Slice": {"CPUWeight", "MemoryHigh", "MemoryMax", "TasksMax"},
}


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_understands_every_line_of_the_unit(unit: Path) -> None:
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(unit, encoding="utf-8")
    for section in parser.sections():
        assert set(parser[section]) <= KNOWN[section]
    if tool := shutil.which("systemd-analyze"):
        done = subprocess.run([tool, "verify", str(unit)], capture_output=True, text=True, check=False)
        # An unknown key is only a warning there, so any word is a failure.
        assert (done.returncode, done.stderr) == (0, "")


def test_there_is_a_unit() -> None:
    assert UNITS
