"""``phalanx doctor``: what this machine has, calmly."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import click
from phalanx.controller.cli.selecting import color_option, json_option, put, style_for
from phalanx.controller.doctor import Finding, Level, findings, probe
from phalanx.controller.exits import Exit
from phalanx.controller.runs.directory import runs_root
from phalanx.controller.runs.words import Style

_MARKS = {Level.READY: "done", Level.ABSENT: "waiting", Level.WARN: "warn", Level.BAD: "failed"}


@click.command()
@json_option
@color_option
def command(as_json: bool, color: str) -> int:
    """What this machine has, and what is missing for which target. Absent Slurm or Docker is no error."""
    found = findings(probe(runs_root()))
    bad = any(finding.level is Level.BAD for finding in found)
    if as_json:
        put(json.dumps({"v": 1, "ok": not bad, "findings": [_document(finding) for finding in found]}))
    else:
        put("\n".join(lines(found, style_for(color, sys.stdout))))
    return Exit.FAILURE if bad else Exit.OK


def _document(finding: Finding) -> dict[str, str]:
    return {**asdict(finding), "level": finding.level.value}


def lines(found: list[Finding], style: Style) -> list[str]:
    """The screen: sections, one line per finding, hints below what needs one, the next command last."""
    out: list[str] = []
    section = ""
    for finding in found:
        name = finding.section if finding.section != section else ""
        section = finding.section
        out.append(f"  {name:<12} {style.mark(_MARKS[finding.level])} {finding.name:<8} {finding.words}")
        if finding.hint:
            out.append(f"  {'':<12}   {'':<8} {finding.hint}")
    if any(finding.level is Level.BAD for finding in found):
        return [*out, "", "Runs will not work here before the above is seen to."]
    return [*out, "", "Everything needed for local runs is here.  Try: phalanx run -N 2 -- hostname"]
