"""A model's card: one entry of models.json, typed.

Fields that this version does not know are kept, as madengine keeps them, and named in a warning: a card is
shared between tools, and a field of another tool is no reason not to run. A known field of a wrong type is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from .context_parts import ErrorScan
from .errors import InputError, did_you_mean
from .forms import log_text, log_texts, truth
from .wording import explain, kind_of

if TYPE_CHECKING:
    from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A model. ``source`` and ``index``: the file and the entry that it is from; ``raw``: the entry itself.

    ``dockerfile`` and ``scripts`` are relative to the project. ``timeout``: seconds, 0 for not said.
    """

    name: str
    scripts: str
    args: str = ""
    dockerfile: str = ""
    dockercontext: str = ""
    url: str = ""
    cred: str = ""
    owner: str = ""
    data: str = ""
    n_gpus: str = ""
    timeout: int = 0
    training_precision: str = ""
    tags: tuple[str, ...] = ()
    multiple_results: str = ""
    skip_gpu_arch: str = ""
    additional_docker_run_options: str = ""
    env_vars: Mapping[str, str] = field(default_factory=dict)
    slurm: Mapping[str, Any] = field(default_factory=dict)
    distributed: Mapping[str, Any] = field(default_factory=dict)
    vllm: Mapping[str, Any] = field(default_factory=dict)
    sglang: Mapping[str, Any] = field(default_factory=dict)
    nnodes: int = 0
    error_scan: ErrorScan = field(default_factory=ErrorScan)
    unknown: tuple[str, ...] = ()
    source: str = "models.json"
    index: int = 0
    raw: Mapping[str, Any] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The card's place and name, for errors: ``models.json: [3] (bert)``."""
        return f"{self.place} ({self.name})"

    @property
    def place(self) -> str:
        """The card's place: ``models.json: [3]``."""
        return f"{self.source}: [{self.index}]"

    def warnings(self) -> list[str]:
        """Fields that nothing here acts on."""
        return [
            f"{self.where}: {name} is not a known field and is not used{did_you_mean(name, field_names())}"
            for name in self.unknown
        ]


#: Fields that madengine knows and that need no action here.
_CARRIED = ("deprecated",)
#: Fields that are read as one: ``error_scan``.
_SCAN = ("log_error_pattern_scan", "log_error_patterns", "log_error_benign_patterns")


@cache
def _schema() -> type[BaseModel]:
    """The schema, made when first needed: importing pydantic takes longer than most commands."""
    from pydantic import (
        AfterValidator,
        BaseModel,
        BeforeValidator,
        ConfigDict,
        Field,
        StrictFloat,
        StrictInt,
        StrictStr,
    )

    scalar = StrictStr | StrictInt | StrictFloat
    texts = list[Annotated[StrictStr, AfterValidator(log_text)]]

    class Card(BaseModel):
        model_config = ConfigDict(extra="allow")

        name: StrictStr = Field(min_length=1, max_length=255)
        scripts: StrictStr = Field(min_length=1, max_length=4096)
        args: StrictStr = ""
        dockerfile: StrictStr = ""
        dockercontext: StrictStr = ""
        url: StrictStr = ""
        cred: StrictStr = ""
        owner: StrictStr = ""
        data: StrictStr | list[StrictStr] = ""
        n_gpus: StrictStr | StrictInt = ""
        timeout: int | None = None
        training_precision: StrictStr = ""
        tags: StrictStr | list[StrictStr] = Field(default_factory=list)
        multiple_results: StrictStr | None = ""
        skip_gpu_arch: StrictStr | list[StrictStr] = ""
        additional_docker_run_options: StrictStr = ""
        env_vars: dict[str, scalar] = Field(default_factory=dict)
        slurm: dict[str, Any] = Field(default_factory=dict)
        distributed: dict[str, Any] = Field(default_factory=dict)
        vllm: dict[str, Any] = Field(default_factory=dict)
        sglang: dict[str, Any] = Field(default_factory=dict)
        nnodes: StrictStr | StrictInt = ""
        deprecated: bool = False
        log_error_pattern_scan: Annotated[bool | None, BeforeValidator(truth)] = None
        log_error_benign_patterns: texts | None = None
        log_error_patterns: Annotated[texts | None, AfterValidator(log_texts)] = None

    return Card


@cache
def field_names() -> Sequence[str]:
    """The fields that a card may have."""
    return tuple(_schema().model_fields)


@cache
def _acted_on() -> Sequence[str]:
    return tuple(name for name in field_names() if name not in _CARRIED)


def read_cards(document: Any, source: str) -> list[ModelCard]:
    """The cards of a parsed models.json. Raises InputError that names entry and field."""
    if not isinstance(document, list):
        raise InputError(f"cannot read {source}: expected a list of models, found {kind_of(document)}")
    return [_card(entry, index, source) for index, entry in enumerate(document)]


def _card(entry: Any, index: int, source: str) -> ModelCard:
    from pydantic import ValidationError

    if not isinstance(entry, dict):
        raise InputError(f"cannot read {source}: [{index}]: expected an object, found {kind_of(entry)}")
    schema = _schema()
    try:
        checked = schema.model_validate(entry)
    except ValidationError as error:
        raise explain(f"{source}: [{index}]", error, {(): field_names()}, {}) from error
    values = vars(checked)
    known = {name: values[name] for name in _acted_on()}
    enabled, patterns, benign = (known.pop(name) for name in _SCAN)
    known["error_scan"] = ErrorScan(enabled, tuple(patterns or ()), tuple(benign or ()))
    unknown = tuple(name for name in checked.model_extra or () if not name.startswith("_"))
    known["tags"] = tuple(_words(known["tags"]))
    for name in ("data", "skip_gpu_arch"):
        known[name] = ",".join(_words(known[name])) if known[name] else ""
    known["multiple_results"] = (known["multiple_results"] or "").strip()
    known["timeout"] = max(0, known["timeout"] or 0)
    known["n_gpus"] = str(known["n_gpus"]).strip()
    known["nnodes"] = _count(known["nnodes"], f"{source}: [{index}].nnodes")
    if known["env_vars"]:
        known["env_vars"] = {name: str(value) for name, value in known["env_vars"].items()}
    return ModelCard(**known, unknown=unknown, source=source, index=index, raw=entry)


def _words(value: str | list[str]) -> list[str]:
    parts = value.split(",") if isinstance(value, str) else value
    return [word for part in parts if (word := part.strip())]


def _count(value: str | int, where: str) -> int:
    """A count of nodes that cards write as text or number; 0 when it is not said."""
    if value == "":
        return 0
    try:
        count = int(value)
    except ValueError:
        count = 0
    if count < 1:
        raise InputError(f"cannot read {where}: expected a number of nodes, found {value!r}")
    return count
