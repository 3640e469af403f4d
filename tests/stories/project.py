"""A project in MAD form, made for a story: models whose scripts are a line of shell, each with its image."""

from __future__ import annotations

import csv
import json
from pathlib import Path


def make_project(place: Path, **models: tuple[str, str]) -> Path:
    """A folder with a model for each name: (image, script)."""
    folder = place / "project"
    cards = []
    for name, (image, script) in models.items():
        scripts = folder / "scripts" / name
        scripts.mkdir(parents=True)
        (scripts / "run.sh").write_text(f"{script}\n")
        env = {"DOCKER_IMAGE_NAME": image}
        cards.append({"name": name, "scripts": f"scripts/{name}/run.sh", "tags": ["all"], "env_vars": env})
    (folder / "models.json").write_text(json.dumps(cards))
    return folder


def rows_of(project: Path) -> dict[str, dict[str, str]]:
    """The last row of each model."""
    with (project / "perf.csv").open(newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}
