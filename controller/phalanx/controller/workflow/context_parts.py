"""The parts of a context that have a shape of their own, as values. "" and None mean: not said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class SlurmBlock:
    """The ``slurm`` key: its presence chooses the target. From ``output_dir`` on, nothing acts on it yet."""

    partition: str = ""
    nodes: int | None = None
    gpus_per_node: str = ""
    time: str = ""
    account: str = ""
    qos: str = ""
    reservation: str = ""
    nodelist: str = ""
    exclude: str = ""
    constraint: str = ""
    gres: str = ""
    exclusive: bool | None = None
    extra: tuple[str, ...] = ()
    output_dir: str = ""
    modules: tuple[str, ...] = ()
    network_interface: str = ""
    shared_workspace: str = ""
    results_dir: str = ""
    enable_node_check: bool | None = None
    auto_cleanup_nodes: bool | None = None
    verbose_node_check: bool | None = None
    allow_submit_without_clean_nodes: bool | None = None


@dataclass(frozen=True, slots=True)
class Tool:
    """One of ``tools``: ``command`` and ``env`` go over what tools.json says of the tool of this name.

    Values of ``env`` may be whole placeholders; ``placeholders.resolve`` has the rule.
    """

    name: str
    command: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Script:
    """One of ``pre_scripts`` or ``post_scripts``: a path of the project, and the arguments as one text."""

    path: str
    args: str = ""


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where a data set is with one provider: over what data.json says of it. ``mirror``: "" for no copy."""

    path: str
    home: str = ""
    mirror: str = ""
    read_write: bool | None = None
    args: str = ""


def data_source(entry: Any) -> DataSource:
    """The same of a validated ``DataEntry``."""
    mirror = str(entry.mirrorlocal).lower() if isinstance(entry.mirrorlocal, bool) else entry.mirrorlocal
    return DataSource(
        entry.path,
        entry.home,
        "" if mirror == "false" else mirror,
        entry.readwrite,
        str(entry.args),
    )


@dataclass(frozen=True, slots=True)
class ErrorScan:
    """How logs are looked through for errors: ``patterns`` replaces the usual, ``benign`` adds."""

    enabled: bool | None = None
    patterns: tuple[str, ...] = ()
    benign: tuple[str, ...] = ()
