"""``phalanx nodes``: the nodes of a run, those alike on one line."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.selecting import (
    chosen,
    json_option,
    node_names,
    put,
    refuse_strange_nodes,
    run_argument,
)
from phalanx.controller.cli.tables import table
from phalanx.controller.exits import Exit
from phalanx.controller.nodesets import fold, natural
from phalanx.controller.runs.directory import RunDirectory
from phalanx.controller.runs.words import short_image, size

if TYPE_CHECKING:
    from phalanx.controller.runs.model import RunView

#: The controller answers from memory.
ANSWER_S = 5.0


@click.command()
@run_argument
@click.option("-w", "--nodes", "nodeset", default="", metavar="NODESET", help="These nodes only.")
@click.option("--wide", is_flag=True, help="One line per node.")
@json_option
def command(run: str, nodeset: str, wide: bool, as_json: bool) -> int:
    """The nodes of RUN: live from its controller, or what its log last said."""
    from phalanx.controller.runs.records import read_all
    from phalanx.controller.runs.view import fold as fold_events

    found = chosen(run)
    names = node_names(nodeset)
    view = fold_events(read_all(found.events), found.run_id)
    refuse_strange_nodes(found, view, names, "cannot show")
    asked = frozenset(names)
    entries = [entry for entry in _entries(found, view) if not asked or entry["node"] in asked]
    entries.sort(key=lambda entry: entry["node_rank"])
    if as_json:
        put(json.dumps(entries, ensure_ascii=False))
        return Exit.OK
    groups = [[entry] for entry in entries] if wide else grouped(entries)
    head = ("STATE", "NODES", "COUNT", "GPUS", "ENGINE", "IMAGE", "MEM FREE", "NOTE")
    put("\n".join(table(head, [_row(group) for group in groups])))
    return Exit.OK


def _entries(run: RunDirectory, view: RunView) -> list[dict[str, Any]]:
    """What the log says, with the controller's fresher words over it when it answers."""
    from phalanx.controller.runs.status import node_document

    entries = {name: node_document(node) for name, node in view.nodes.items()}
    for report in [] if view.finished else _ask(run):
        entry = entries.setdefault(report["node"], {"detail": "", "image_id": ""})
        entry.update({key: value for key, value in report.items() if value is not None})
    return list(entries.values())


def _ask(run: RunDirectory) -> list[dict[str, Any]]:
    import asyncio
    from dataclasses import asdict

    from phalanx.controller.control.client import ContactLost, ControlClient, ControlRefused
    from phalanx.controller.runs.contact import socket_path

    path = socket_path(run)
    if path is None:
        return []

    async def ask() -> list[dict[str, Any]]:
        async with asyncio.timeout(ANSWER_S):
            return [asdict(report) for report in await ControlClient(path).nodes()]

    try:
        return asyncio.run(ask())
    except (ContactLost, ControlRefused, TimeoutError) as error:
        click.echo(f"phalanx: the controller does not answer ({error}); this is what the log says", err=True)
        return []


def grouped(entries: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Nodes that look the same, together."""
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for entry in entries:
        groups.setdefault((entry["state"], *_looks(entry), _note(entry)), []).append(entry)
    return list(groups.values())


def _row(group: list[dict[str, Any]]) -> tuple[str, ...]:
    first = group[0]
    free = [entry["facts"]["memory_free_bytes"] for entry in group if entry.get("facts")]
    memory = size(min(free)) if free else "-"
    nodes = fold(natural(entry["node"] for entry in group))
    gpus, engine, image = _looks(first)
    return first["state"], nodes, str(len(group)), gpus, engine, image, memory, _note(first)


def _note(entry: dict[str, Any]) -> str:
    """What is wrong with a node, or with GPUs of it."""
    from phalanx.controller.fleet.hardware import hardware_of

    return str(entry.get("detail") or hardware_of(entry.get("facts")).unusable)


def _looks(entry: dict[str, Any]) -> tuple[str, str, str]:
    """GPUs, engine and image in short."""
    facts = entry.get("facts") or {}
    models = [str(gpu.get("model") or gpu.get("vendor")) for gpu in facts.get("gpus") or ()]
    gpus = " ".join(f"{models.count(model)}×{model}" for model in dict.fromkeys(models)) or "-"
    engine = facts.get("engine") or {}
    name = f"{engine.get('kind', '')} {engine.get('version', '')}".strip() or "-"
    return gpus, name, short_image(entry.get("image_id") or "") or "-"
