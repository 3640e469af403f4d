"""The product's source as syntax trees, for the rules of the house."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROOMS = ("agent", "controller", "protocol", "templates")


@dataclass(frozen=True)
class Module:
    """A file: where it is, what it says, its tree."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    def at(self, node: ast.AST) -> str:
        """Where a node is, for people: ``path:line``."""
        return f"{self.name}:{getattr(node, 'lineno', 0)}"

    def source(self, node: ast.AST) -> str:
        """The lines of a node, comments included."""
        start, end = getattr(node, "lineno", 1), getattr(node, "end_lineno", 1)
        return "\n".join(self.text.splitlines()[start - 1 : end])

    def walk(self, kind: type[ast.AST]) -> Iterator[ast.AST]:
        return (node for node in ast.walk(self.tree) if isinstance(node, kind))


def read(path: Path) -> Module:
    text = path.read_text(encoding="utf-8")
    return Module(path, text, ast.parse(text))


@cache
def product() -> tuple[Module, ...]:
    """Every module of the four rooms."""
    paths = [path for room in ROOMS for path in sorted((ROOT / room / "phalanx").rglob("*.py"))]
    return tuple(map(read, paths))


def called(node: ast.Call) -> str:
    """The dotted name of what is called, as written; "" for anything else."""
    return dotted(node.func)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else node.attr
    return node.id if isinstance(node, ast.Name) else ""
