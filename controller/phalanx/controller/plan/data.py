"""The data sets of a model as steps, places and environment: what a case needs so that they are there.

Which provider can be used is seen on the nodes, not here: a path of the login node says nothing of theirs.
The plan has all that may be used, in madengine's order, and the node takes the first that works; see
``agent/data``. Only ``custom`` is decided here: its script lies in the project.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

from phalanx.protocol.allowances import needs
from phalanx.protocol.messages import (
    DATA_FOLDER,
    OWN_PROGRAM,
    WORKSPACE,
    ContainerSpec,
    DataMount,
    Mount,
    Runtime,
)

from ..workflow.card import ModelCard
from ..workflow.data import DataBook, DataSet, Source
from ..workflow.errors import InputError
from ..workflow.place import inside
from .data_access import Access
from .model import EnvValue, Share, StepPlan
from .mounts import checked
from .secrets import Secret, Secrets
from .words import split_words, unexpanded

#: Seconds that fetching a data set may take, and a script that provides one (madengine's figures).
FETCH_S, CUSTOM_S = 3600.0, 1200.0
HOME_VARIABLE, NAME_VARIABLE = "MAD_DATAHOME", "MAD_DATANAME"
#: Where a data set is in a container when nobody says, with its number behind it.
HOME = "/data_dlm"
#: The distribution that the program on the nodes needs to reach an object store.
S3_CLIENT = "obstore"
_STORES = ("minio", "aws")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")
_CUSTOM = """\
# the project's own script provides the data, in the folder that the model is told
cd -- "$1" || exit
shift
exec bash "$@"
"""


@dataclass(frozen=True, slots=True)
class DataInputs:
    """What a run knows of data. ``project``: the folder of scripts that provide data.

    ``mirror``: the folder of the nodes in which copies are kept, and ``mirror_origin``, who says so.
    """

    book: DataBook = field(default_factory=DataBook)
    access: Mapping[str, Access] = field(default_factory=dict)
    project: str = ""
    mirror: str = ""
    mirror_origin: str = ""


@dataclass(frozen=True, slots=True)
class CaseData:
    """What a case has of data: ``library`` is what the nodes need to fetch it, "" for nothing."""

    steps: tuple[StepPlan, ...] = ()
    places: tuple[DataMount, ...] = ()
    shares: tuple[Share, ...] = ()
    env: Mapping[str, EnvValue] = field(default_factory=dict)
    secrets: Secrets = field(default_factory=Secrets)
    origins: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    library: str = ""


def data_of(data: DataInputs, card: ModelCard, runtime: Runtime) -> CaseData:
    """The data of a model; that of a card without any is empty. Raises InputError."""
    sets = data.book.of_card(card)
    if not sets:
        return CaseData()
    made = [_Making(data, one, number, runtime) for number, one in enumerate(sets)]
    for one in made:
        one.check()
    _check_targets(made)
    names = ",".join(one.set.name for one in made)
    steps = _distinct(step for one in made for step in one.steps())
    return CaseData(
        steps=steps,
        places=tuple(one.place() for one in made),
        shares=tuple(share for one in made for share in one.shares()),
        env={NAME_VARIABLE: EnvValue(names, f"{card.where}: data")},
        secrets=Secrets({name: secret for one in made for name, secret in one.secrets().items()}),
        origins={one.target: one.origin for one in made},
        warnings=tuple(words for one in made for words in one.warnings()),
        library=S3_CLIENT if any(one.needs_client() for one in made) else "",
    )


def _folder_of_data(path: str, origin: str) -> None:
    """Raises InputError for what is no path, or the node's own: no word of the user makes that data."""
    mount = checked(Mount(path, "/-", read_only=True), origin)
    for need in needs(ContainerSpec(Runtime.DOCKER, mounts=(mount,))):
        raise InputError(f"cannot use {origin}: {need.why}")


def with_data(container: ContainerSpec, data: CaseData, env: Mapping[str, EnvValue]) -> ContainerSpec:
    """The container with the places of its data. Raises InputError for a place that a mount has.

    Nodes say where the data is, unless the user does in ``env``.
    """
    taken = {mount.target for mount in container.mounts}
    for place in data.places:
        if place.target in taken:
            raise InputError(
                f"cannot use {data.origins[place.target]}: home: {place.target} is the target of a mount too"
            )
    variable = HOME_VARIABLE if data.places and HOME_VARIABLE not in env else ""
    return replace(container, data=data.places, data_variable=variable)


def _distinct(steps: Iterable[StepPlan]) -> tuple[StepPlan, ...]:
    """Steps by names of their own: names of data sets that differ may look the same as names of steps."""
    made: list[StepPlan] = []
    for step in steps:
        taken = {one.name for one in made}
        tries = (step.name, *(f"{step.name}-{number}" for number in range(2, len(taken) + 3)))
        name = next(name for name in tries if name not in taken)
        made.append(replace(step, name=name))
    return tuple(made)


def _check_targets(made: Iterable[_Making]) -> None:
    taken: dict[str, _Making] = {}
    for one in made:
        other = taken.setdefault(one.target, one)
        if other is not one:
            raise InputError(
                f"cannot use {one.origin}: home: {one.target} is the place of {other.set.name} as well"
            )


@dataclass(frozen=True, slots=True)
class _Making:
    """One data set of a case, becoming steps and places."""

    data: DataInputs
    set: DataSet
    number: int
    runtime: Runtime

    @property
    def custom(self) -> Source | None:
        """The script that provides it: it comes first, and it is always there."""
        first = self.set.sources[0]
        return first if first.provider == "custom" else None

    @property
    def sources(self) -> tuple[Source, ...]:
        """Those that may be used."""
        return (self.custom,) if self.custom is not None else self.set.sources

    @property
    def origin(self) -> str:
        """Where it is said."""
        return self.sources[0].origin

    @property
    def target(self) -> str:
        """Where a container has it: the first home that is given, else a place with its number."""
        home = next((source.said.home for source in self.sources if source.said.home), "")
        if not home:
            return f"{HOME}_{self.number}"
        return checked(Mount("/-", home), f"{self.origin}: home").target

    @property
    def mirror(self) -> tuple[str, str]:
        """The folder of the nodes that keeps a copy, and who says so; ("", "") for none."""
        said = [source for source in self.sources if source.said.mirror]
        for source in said:
            if not source.said.mirror.startswith("/"):
                raise InputError(
                    f"cannot use {source.origin}.mirrorlocal: {source.said.mirror!r} is no absolute path of "
                    "the nodes; give one, or say --force-mirror-local PATH"
                )
        if self.custom is None and self.data.mirror:
            return self.data.mirror, self.data.mirror_origin
        return (said[0].said.mirror, f"{said[0].origin}.mirrorlocal") if said else ("", "")

    def check(self) -> None:
        """Raises InputError for what no node could use."""
        for source in self.sources:
            _CHECKS[source.provider](self, source)
        path, origin = self.mirror
        if path:
            _folder_of_data(path, origin)

    def _check_custom(self, source: Source) -> None:
        if source.said.mirror:
            raise InputError(f"cannot use {source.origin}.mirrorlocal: what a script provides has no copy")
        relative = inside(PurePosixPath(), source.said.path)
        if relative is None or relative == PurePosixPath():
            raise InputError(
                f"cannot use {source.origin}.path: {source.said.path!r} leaves the project's folder"
            )
        if not Path(self.data.project, relative).is_file():
            raise InputError(
                f"cannot use {source.origin}.path: there is no file {relative} in {self.data.project}"
            )

    def _check_local(self, source: Source) -> None:
        if source.said.mirror:
            raise InputError(
                f"cannot use {source.origin}.mirrorlocal: a folder of the node needs no copy on the node; "
                "leave it out"
            )
        _folder_of_data(source.said.path, f"{source.origin}.path")

    def _check_store(self, source: Source) -> None:
        bucket, key = _bucket_and_key(source.said.path)
        if not _BUCKET.fullmatch(bucket):
            raise InputError(
                f"cannot use {source.origin}.path: {source.said.path!r} does not begin with a bucket: "
                "expected s3://BUCKET/KEY"
            )
        if any(part in (".", "..") for part in key.split("/")) or "//" in key or key.startswith("/"):
            raise InputError(
                f"cannot use {source.origin}.path: {source.said.path!r} has a part that is empty, . or .."
            )

    def _check_nas(self, source: Source) -> None:
        if not source.said.path.startswith("/"):
            raise InputError(f"cannot use {source.origin}.path: {source.said.path!r} is no absolute path")

    def place(self) -> DataMount:
        """Where it is on a node."""
        local = next((source for source in self.sources if source.provider == "local"), None)
        remote = [source for source in self.sources if source.provider in ("minio", "nas", "aws")]
        writable = any(source.said.read_write for source in remote)
        return DataMount(
            name=self.set.name,
            target=self.target,
            source=checked(Mount(local.said.path, "/-"), local.origin).source if local else "",
            mirror=self.mirror[0] if remote else "",
            cache=_key([self._address(source) for source in remote]) if remote and not writable else "",
            read_only=not (local and local.said.read_write),
        )

    def steps(self) -> list[StepPlan]:
        """One that has the data there; a script has another behind it that looks at what it left."""
        name = _NOT_A_NAME.sub("_", self.set.name)[:80]
        own = self._own_step(f"data-{name}")
        if self.custom is None:
            return [own]
        folder = self.target if self.runtime is not Runtime.PROCESS else f"../{DATA_FOLDER}/{self.number}"
        script = f"{WORKSPACE if self.runtime is not Runtime.PROCESS else '../..'}/{self._script}"
        argv = ("sh", "-c", _CUSTOM, "sh", folder, script, *self._arguments())
        return [
            StepPlan(f"data-{name}", argv, "node", CUSTOM_S),
            StepPlan(f"data-{name}-size", own.argv, "node", FETCH_S, env=own.env, where="host"),
        ]

    @property
    def _script(self) -> str:
        return str(inside(PurePosixPath(), self.set.sources[0].said.path))

    def _arguments(self) -> list[str]:
        source = self.set.sources[0]
        return split_words(source.said.args, f"{source.origin}.args")

    def shares(self) -> list[Share]:
        """The script, at its path of the project."""
        if self.custom is None:
            return []
        return [Share(str(Path(self.data.project, self._script)), self._script)]

    def _own_step(self, name: str) -> StepPlan:
        request = {
            "name": self.set.name,
            "number": self.number,
            "mirror": self.mirror[0],
            "sources": [self._requested(source) for source in self.sources],
        }
        argv = (*OWN_PROGRAM, json.dumps(request, separators=(",", ":")))
        env = {
            "PHALANX_DATA_RANK": EnvValue("{NODE_RANK}", "phalanx", template=True),
            "PHALANX_DATA_NODES": EnvValue("{NNODES}", "phalanx", template=True),
        }
        for variable, secret in self.secrets().items():
            env[variable] = EnvValue("", secret.origin, secret=True)
        return StepPlan(name, argv, "node", FETCH_S, env=env, where="host")

    def _access(self, source: Source) -> Access:
        return self.data.access.get(source.provider, Access())

    def secrets(self) -> dict[str, Secret]:
        """What its providers ask for, by variable."""
        return {
            name: secret for source in self.sources for name, secret in self._access(source).secrets.items()
        }

    def needs_client(self) -> bool:
        """Whether an object store may be asked."""
        return any(source.provider in _STORES and not self._access(source).refused for source in self.sources)

    def _requested(self, source: Source) -> dict[str, Any]:
        """A source as the program on the nodes takes it; without credentials, which it has by variable."""
        said: dict[str, Any] = {"provider": source.provider, "path": source.said.path}
        if source.provider in _STORES:
            said["bucket"], said["key"] = _bucket_and_key(source.said.path)
        access = self._access(source)
        return {**said, **access.values, **({"refused": access.refused} if access.refused else {})}

    def _address(self, source: Source) -> list[Any]:
        """What tells a source from all others: provider, path, and where that is."""
        values = self._access(source).values
        hosts = [[one["host"], one["port"]] for one in values.get("hosts", ())]
        return [source.provider, source.said.path, values.get("endpoint", ""), hosts]

    def warnings(self) -> list[str]:
        """What is said and does nothing."""
        homes = [source for source in self.sources if source.said.home]
        words = [
            f"{source.origin}: home {source.said.home!r} is not used: the data set is at {self.target}"
            for source in homes[1:]
            if source.said.home != homes[0].said.home
        ]
        if homes and self.runtime is Runtime.PROCESS:
            words.append(
                f"{homes[0].origin}: home is a place in a container; without one {HOME_VARIABLE} says where "
                "the data is"
            )
        if self.custom is not None:
            source = self.set.sources[0]
            words += unexpanded(source.said.args, f"{source.origin}.args")
        return words


_CHECKS = {
    "custom": _Making._check_custom,
    "local": _Making._check_local,
    "minio": _Making._check_store,
    "aws": _Making._check_store,
    "nas": _Making._check_nas,
}


def _bucket_and_key(path: str) -> tuple[str, str]:
    """``s3://bucket/a/b`` and ``bucket/a/b``: bucket and key."""
    bucket, _, key = path.removeprefix("s3://").partition("/")
    return bucket, key


def _key(addresses: list[list[Any]]) -> str:
    """The name of a data set's folder in a node's cache."""
    return hashlib.sha256(json.dumps(addresses).encode()).hexdigest()[:40]
