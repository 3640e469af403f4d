"""The steps of a model, in madengine's order: facts, clone, tools, pre-scripts, script, post-scripts.

Each is a step of its own, with its stream, its deadline and its status in the event log. What a step needs
beside the model's folder is a share of the workspace: scripts lie in the folder in which they run, under
their own names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from ..workflow.bundled import FOLDER as COMMON
from ..workflow.card import ModelCard
from ..workflow.errors import InputError
from ..workflow.models import SelectedModel
from ..workflow.scripts import FoundScript
from ..workflow.secrecy import url_password
from ..workflow.tools import SYSTEM_DETAILS
from .model import EnvValue, Share, StepPlan
from .secrets import Secret, Secrets
from .step_scripts import CLONE, FACTS
from .tools import ToolStack, check_argv
from .words import split_words

#: The folder of the workspace that has the model's scripts, and in which they run (madengine's name).
MODEL_FOLDER = "run_directory"
#: Where the model's scripts wait beside a repository that is cloned into the model's folder.
SCRIPTS_BESIDE = ".phalanx-scripts"
#: madengine's deadlines, in seconds.
CLONE_S, SCRIPT_S = 240.0, 600.0
FACTS_S = CHECK_S = 60.0
#: How the name of the variable ends that has a private key: for the clone alone, not for the model.
SSH_KEY = "SSH_KEY"
#: Schemes of addresses that are cloned: git has others, such as ext::, that run commands.
_SCHEMES = ("https", "http", "ssh", "git", "file")
_BY_WEB = re.compile(r"https?://", re.IGNORECASE)
_SCP_LIKE = re.compile(r"[A-Za-z0-9_.-]+@[A-Za-z0-9_.\[\]:-]+:[^\s-]\S*")
_NOT_A_NAME = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class Around:
    """What runs before and after the model's script, and what the nodes need for it.

    ``secrets``: those that only these steps are given.
    """

    folder: str
    before: tuple[StepPlan, ...]
    after: tuple[StepPlan, ...]
    shares: tuple[Share, ...]
    secrets: Mapping[str, Secret]


def around_model(
    model: SelectedModel, stack: ToolStack, common: Iterable[str], credentials: Secrets, where: str
) -> Around:
    """The steps around a model's script. Raises InputError.

    ``common``: folders of the login node that lie over each other as ``scripts/common`` beside the model's
    folder. ``credentials``: what the card's ``cred`` gives. ``where``: in what the steps run, in words.
    """
    card = model.card
    folder = model_folder(card)
    before = [StepPlan("facts", ("sh", "-c", FACTS, "sh"), "node", FACTS_S)]
    if card.url:
        before.append(_clone(card, credentials))
    if (check := check_argv(stack, where)) is not None:
        before.append(StepPlan("tools", check, "node", CHECK_S))
    names = _names((*stack.pre, *stack.post), model.program[-1:])
    before += [_script(one, names[one.file], f"pre-{number}") for number, one in enumerate(stack.pre, 1)]
    after = [
        _script(one, names[one.file], f"post-{number}", always=True)
        for number, one in enumerate(stack.post, 1)
    ]
    # git clones into an empty folder only
    scripts = SCRIPTS_BESIDE if card.url else folder
    shares = [Share(file, f"{scripts}/{name}") for file, name in names.items()]
    shares.append(Share(model.directory, scripts))
    shares += [Share(one, COMMON) for one in common]
    secrets = {name: credentials[name] for step in before for name, value in step.env.items() if value.secret}
    return Around(folder, tuple(before), tuple(after), tuple(shares), secrets)


def _names(scripts: Iterable[FoundScript], kept: Iterable[str]) -> dict[str, str]:
    """What each file is called on the nodes: its own name, with a number where another has that.

    ``kept``: names that are the model's own.
    """
    names: dict[str, str] = {}
    for script in scripts:
        if script.file not in names:
            taken = {*names.values(), *kept}
            tries = (script.name, *(f"{number}-{script.name}" for number in range(2, len(taken) + 3)))
            names[script.file] = next(name for name in tries if name not in taken)
    return names


def model_folder(card: ModelCard) -> str:
    """The folder in which a model runs: ``run_directory``, or the last part of the address it is cloned from.

    Raises InputError for an address that is not cloned.
    """
    if not card.url:
        return MODEL_FOLDER
    where = f"{card.where}: url"
    if url_password(card.url) or (_BY_WEB.match(card.url) and "@" in urlsplit(card.url).netloc):
        raise InputError(
            f"cannot use {where}: it holds a password; put it into credential.json and name it in cred"
        )
    if any(character.isspace() or not character.isprintable() for character in card.url):
        raise InputError(f"cannot use {where}: {card.url!r} holds white space or control characters")
    parts = urlsplit(card.url)
    if parts.scheme not in _SCHEMES and not _SCP_LIKE.fullmatch(card.url):
        known = ", ".join(f"{scheme}://" for scheme in _SCHEMES)
        raise InputError(
            f"cannot use {where}: {card.url!r} is no address to clone: expected {known} or user@host:path"
        )
    name = PurePosixPath(card.url.rstrip("/").replace(":", "/")).name.removesuffix(".git")
    if not name.strip(".") or _NOT_A_NAME.search(name):
        raise InputError(f"cannot use {where}: {card.url!r} does not end in a name for the model's folder")
    return name


def _clone(card: ModelCard, secrets: Secrets) -> StepPlan:
    """Names of variables stand in the command; what is in them reaches the step by its environment."""

    def named(*keys: str) -> str:
        return next((f"{card.cred}_{key}" for key in keys if f"{card.cred}_{key}" in secrets), "-")

    by_ssh = card.url.startswith("ssh://") or "://" not in card.url
    user, password = named("USERNAME", "USER"), named("PASSWORD", "TOKEN")
    key = named(SSH_KEY) if by_ssh else "-"
    argv = ("sh", "-c", CLONE, "sh", card.url, f"../{SCRIPTS_BESIDE}", user, password, key)
    env = {} if key == "-" else {key: EnvValue("", secrets[key].origin, secret=True)}
    return StepPlan("clone", argv, "node", CLONE_S, env=env)


def _script(script: FoundScript, name: str, step: str, *, always: bool = False) -> StepPlan:
    """A script before or after the model, run once on each node."""
    argv = ("bash", name, *split_words(script.args, f"{script.origin}.args"))
    own = script.origin == SYSTEM_DETAILS
    title = "environment" if own else f"{step}-{_NOT_A_NAME.sub('_', script.name)}"[:96]
    return StepPlan(title, argv, "node", SCRIPT_S, always)
