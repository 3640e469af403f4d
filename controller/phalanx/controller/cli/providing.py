"""What a run knows of data: data.json of the project, the context over it, and how providers are reached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from phalanx.controller.plan.data import DataInputs
    from phalanx.controller.workflow.context import Context
    from phalanx.controller.workflow.models import SelectedModel


def data_inputs(
    given: Mapping[str, Any], environ: Mapping[str, str], context: Context, models: Sequence[SelectedModel]
) -> DataInputs:
    """What the models may name. For models without data only a file that is named is read, to be sure of it.

    Raises InputError.
    """
    from phalanx.controller.builds.credentials import read_credentials
    from phalanx.controller.plan.data import DataInputs
    from phalanx.controller.plan.data_access import access_of
    from phalanx.controller.workflow.data import DATA_FILE, load_data
    from phalanx.controller.workflow.errors import InputError
    from phalanx.controller.workflow.models import project_folder

    config, mirror = given["data_config"], given["force_mirror_local"]
    for option, value in (("--data-config", config), ("--force-mirror-local", mirror)):
        if value and not models:
            raise InputError(f"cannot use {option} with a command: data sets belong to models")
    wanted = any(model.card.data for model in models)
    if not wanted and not config:
        return DataInputs()
    project = project_folder(environ)
    path = Path(config) if config else project / DATA_FILE
    book = load_data(path, config or DATA_FILE, context, required=bool(config))
    if not wanted:
        return DataInputs()
    credentials = read_credentials(project, environ)
    return DataInputs(
        book=book,
        access=access_of(credentials.entries, credentials.origins),
        project=str(project.absolute()),
        mirror=mirror or context.shared_data,
        mirror_origin="--force-mirror-local" if mirror else context.origin("shared_data"),
    )
