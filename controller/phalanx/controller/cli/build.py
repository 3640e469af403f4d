"""``phalanx build``: the images of models, from their Dockerfiles, and the manifest that runs begin from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from phalanx.controller.cli.run_options import build_options
from phalanx.controller.cli.selecting import color_option, json_option, put
from phalanx.controller.exits import Exit
from phalanx.controller.logs.clean import clean_text

if TYPE_CHECKING:
    from phalanx.controller.cli.building import PlannedBuild

EPILOG = """\b
Examples:
  phalanx build --tags llama70b
  phalanx build --tags all --additional-context '{"gpu_vendor": "NVIDIA", "guest_os": "UBUNTU"}'
  phalanx build --tags llama70b --target-archs gfx90a,gfx942
  phalanx build --tags llama70b --registry registry.example:5000
  phalanx build --tags llama70b --use-image rocm/vllm:6.2
  phalanx build --tags llama70b --build-on-compute -p gpu
  phalanx build --tags llama70b --dry-run
  phalanx run -m build_manifest.json -N 8 -p gpu

Every Dockerfile docker/NAME.* of a model whose "# CONTEXT {...}" line fits the context is built.
Whole logs lie beside the manifest. No secret is written: MAD_SECRETS* and credentials go to the
Dockerfiles that ask for them, by a private file or the builder's environment.

Exit: 0 all built and pushed, 1 no model has the tag, 2 an image was not built or not pushed,
4 bad arguments, 130 Ctrl-C.
"""


@click.command(epilog=EPILOG)
@build_options
@click.option(
    "--batch-manifest",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Build the models of this list that have build_new; record the others.",
)
@click.option(
    "--use-image", default="", metavar="IMAGE|auto", help="Build nothing; the models run in this image."
)
@click.option("--build-on-compute", "on_compute", is_flag=True, help="Build on a compute node, not here.")
@click.option(
    "-m",
    "--manifest-output",
    "manifest",
    default="build_manifest.json",
    show_default=True,
    metavar="FILE",
    help="Where the manifest is written.",
)
@click.option("-s", "--summary-output", default="", metavar="FILE", help="Also write the summary here.")
@click.option(
    "-l", "--live-output", "--verbose", is_flag=True, help="Show what the builder says, line by line."
)
@click.option(
    "-j",
    "--jobs",
    "at_once",
    type=click.IntRange(1, 64),
    default=2,
    show_default=True,
    help="Builds at a time.",
)
@click.option("--dry-run", is_flag=True, help="Show what would be built, and how; touch nothing.")
@click.option("-q", "--quiet", is_flag=True, help="Failures only.")
@click.option(
    "--progress",
    type=click.Choice(["auto", "tty", "plain", "quiet"]),
    default="auto",
    envvar="PHALANX_PROGRESS",
    help="How to tell what happens; auto is plain without a terminal or with CI set.",
)
@json_option
@color_option
def command(**given: Any) -> int:
    """Build the images of the models that --tags chooses, and write build_manifest.json."""
    from phalanx.controller.cli.building import built, planned_build

    build = planned_build(given)
    plan = build.plan
    for warning in plan.warnings:
        click.echo(f"phalanx: {clean_text(warning)}", err=True)
    if given["dry_run"]:
        return shown(build, given)
    return built(build, given)


def shown(build: PlannedBuild, given: dict[str, Any]) -> int:
    """The plan, and that of the run that carries it out on a compute node; nothing is touched."""
    from phalanx.controller.builds.words import plan_document, plan_lines

    plan, run = build.plan, None
    if plan.on_compute and plan.builds:
        from phalanx.controller.cli.compute_build import run_plan

        run, _ = run_plan(build, given)
    if given["as_json"]:
        from phalanx.controller.plan.codec import to_document

        document = plan_document(plan) | ({"run": to_document(run)} if run else {})
        put(json.dumps(document, ensure_ascii=False, indent=2))
    else:
        from phalanx.controller.plan.describe import describe

        put("\n".join(plan_lines(plan)) + (f"\n\n{describe(run).rstrip()}" if run else ""))
    return Exit.BUILD if plan.unbuilt else Exit.OK
