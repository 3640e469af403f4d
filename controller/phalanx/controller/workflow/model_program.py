"""The process in which a project's ``get_models_json.py`` runs: that program is somebody else's code.

Started as a file of its own by ``dynamic``, with nothing but the standard library: what the program imports
as ``madengine.utils.discover_models`` is made here, so that no other package need be installed. Its answer,
one JSON document, goes out over a descriptor of its own: whatever the program prints cannot be taken for it.

    model_program.py FILE SCOPE DESCRIPTOR INDEXES

FILE is run and its ``list_models()`` called. INDEXES is JSON: null for all models as they are, or a list of
places in that list, whose models have ``update_model()`` called first, under their full name ``SCOPE/name``.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import traceback
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: What the program may give. More is a mistake, and would not fit the words that ask for updates.
MODEL_LIMIT = 10_000
SHIM = "madengine.utils.discover_models"


@dataclass
class CustomModel:
    """A model that a program gives: fields and defaults are those of madengine's class of this name."""

    name: str
    dockerfile: str = ""
    dockercontext: str = ""
    scripts: str = ""
    url: str = ""
    cred: str = ""
    owner: str = ""
    data: str = ""
    n_gpus: str = "-1"
    timeout: int = 7200
    training_precision: str = ""
    tags: list[str] = field(default_factory=list)
    args: str = ""
    multiple_results: str = ""
    skip_gpu_arch: str = ""
    additional_docker_run_options: str = ""

    def update_model(self) -> None:
        """Called once a tag has chosen the model, for what is costly to find out. Does nothing here."""


class Refusal(Exception):
    """The program does not keep to the form; the message says how."""


def provide_shim() -> None:
    """Make the module importable from which programs of this form take ``CustomModel``."""
    parent: types.ModuleType | None = None
    names = SHIM.split(".")
    for count in range(1, len(names) + 1):
        module = types.ModuleType(".".join(names[:count]))
        module.__path__ = []
        sys.modules[module.__name__] = module
        if parent is not None:
            setattr(parent, names[count - 1], module)
        parent = module
    CustomModel.__module__ = SHIM
    vars(sys.modules[SHIM])["CustomModel"] = CustomModel


def models_of(path: Path) -> list[CustomModel]:
    """What the program's ``list_models()`` gives. Raises Refusal, and whatever the program raises."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Refusal("it is no Python program")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    function = getattr(module, "list_models", None)
    if not callable(function):
        raise Refusal("it has no function list_models()")
    models = function()
    if not isinstance(models, list):
        raise Refusal(f"list_models() gave {_kind(models)}, expected a list of CustomModel")
    if len(models) > MODEL_LIMIT:
        raise Refusal(f"list_models() gave {len(models)} models, {MODEL_LIMIT} are the most")
    for index, model in enumerate(models):
        if not isinstance(model, CustomModel):
            raise Refusal(f"list_models()[{index}] is {_kind(model)}, expected a CustomModel")
    return models


def updated(model: CustomModel, scope: str) -> CustomModel:
    """The model after its ``update_model()``, under the name that it had before."""
    plain = model.name
    model.name = full = f"{scope}/{plain}"
    model.update_model()
    if model.name != full:
        raise Refusal(f"update_model() of {full} changed its name to {model.name!r}; tags choose by name")
    model.name = plain
    return model


def entry(model: CustomModel) -> dict[str, Any]:
    """A model as an entry of models.json: what it has that is not private. Raises Refusal."""
    values = {name: value for name, value in vars(model).items() if not name.startswith("_")}
    for name, value in values.items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            raise Refusal(f"{name} of model {model.name!r} cannot be written as JSON: {error}") from error
    return values


def answer(path: Path, scope: str, indexes: list[int] | None) -> dict[str, Any]:
    """The document: ``models``, or ``refused`` with the reason."""
    doing = "running it"
    try:
        models = models_of(path)
        if indexes is None:
            return {"models": [entry(model) for model in models]}
        if any(index >= len(models) for index in indexes):
            raise Refusal("list_models() gives fewer models than a moment ago")
        doing = "update_model()"
        return {"models": [entry(updated(models[index], scope)) for index in indexes]}
    except Refusal as refusal:
        return {"refused": str(refusal)}
    except BaseException as error:  # noqa: BLE001 - whatever the program raises, exits too, is told by its name
        inner = error.__traceback__
        while inner is not None and inner.tb_frame.f_code.co_filename != str(path):
            inner = inner.tb_next
        traceback.print_exception(type(error), error, inner or error.__traceback__)
        return {"refused": f"{doing} raised {type(error).__name__}{f': {error}' if str(error) else ''}"}


def _kind(value: object) -> str:
    return "None" if value is None else f"a {type(value).__name__}"


def main(words: list[str]) -> None:
    """Run the program and answer. Ends the process here: threads that the program left hold nobody up."""
    file, scope, descriptor, indexes = words
    out = int(descriptor)
    os.set_inheritable(out, False)
    sys.argv[:] = [file]
    sys.path.append(str(Path(file).parent))
    provide_shim()
    document = json.dumps(answer(Path(file), scope, json.loads(indexes))).encode()
    sys.stdout.flush()
    sys.stderr.flush()
    with os.fdopen(out, "wb") as channel:
        channel.write(document)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
