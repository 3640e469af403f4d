"""Write the parts of docs/ that derive from the code, or check that they are current.

    python docs/generate.py            write
    python docs/generate.py --check    say what is stale; exit status 1

``protocol.md``: every frame kind with its cap, every message with its fields and limits.
``context.md``: the keys of an additional context and the presets, from their schema and their files.
``tools.md``: the form of a tools file and the tools that come with phalanx, from their schema and their data.
``states.md``: each state machine as a diagram, from its table of transitions and the comments of its Enum.
"""

from __future__ import annotations

import argparse
import ast
import dataclasses
import enum
import importlib
import inspect
import sys
import textwrap
import types
import typing
from pathlib import Path
from typing import Annotated, Any

from phalanx.controller.plan.tools import stack
from phalanx.controller.workflow import context_schema, presets, tools_schema
from phalanx.controller.workflow.context import Context
from phalanx.controller.workflow.context_parts import Tool
from phalanx.controller.workflow.tools import chosen, definitions
from phalanx.protocol import VERSION, VERSION_MIN, schema
from phalanx.protocol.frames import CAPS
from phalanx.protocol.messages import MESSAGES, Kind, Message

HERE = Path(__file__).parent
NOTE = "<!-- Made by docs/generate.py from the code. Do not edit: run `make docs`. -->\n"

#: module and its table of transitions -> what the machine is
MACHINES = {
    ("phalanx.controller.fleet.states", "PHASES"): "A run",
    ("phalanx.controller.fleet.states", "CASE_PHASES"): "A case",
    ("phalanx.protocol.membership", "TRANSITIONS"): "An agent in the fleet",
    ("phalanx.protocol.connection", "TRANSITIONS"): "A connection",
}

KINDS = {
    Kind.HANDSHAKE: "all that a peer may send before it has proved itself",
    Kind.CONTROL: "everything that decides; never waits behind the other kinds",
    Kind.LOG: "a msgpack header and raw bytes of a log stream",
    Kind.BULK: "a msgpack header and raw bytes of a blob, on connections of their own",
}


def bytes_in_words(count: int) -> str:
    """1048576 -> 1 MiB; what is not whole stays a sum."""
    for size, unit in ((1 << 20, "MiB"), (1 << 10, "KiB")):
        if count >= size:
            whole, rest = divmod(count, size)
            return f"{whole} {unit}" + (f" + {bytes_in_words(rest)}" if rest else "")
    return f"{count} B"


def _range(bounds: schema.Range) -> str:
    def end(value: float) -> str:
        for power in (16, 31, 32, 63, 64):
            if value == 2**power - 1:
                return f"2^{power}-1"
        return f"{value:g}"

    return f"{end(bounds.low)}..{end(bounds.high)}"


def _plain(kind: type, marks: list[Any]) -> str:
    """A scalar with its limit."""
    for mark in marks:
        if mark is schema.RAW:
            return "raw bytes"
        if isinstance(mark, schema.Range):
            return f"{kind.__name__} {_range(mark)}"
        if isinstance(mark, schema.Text):
            return f"text ≤ {mark.longest}"
        if isinstance(mark, schema.Octets):
            return f"bytes {'=' if mark.exact else '≤'} {mark.longest}"
    if kind is str:
        return f"text ≤ {schema.DEFAULT_TEXT.longest}"
    if kind is bytes:
        return f"bytes ≤ {schema.DEFAULT_OCTETS.longest}"
    return kind.__name__


def type_in_words(annotation: Any) -> str:
    """An annotation as a reader of the table sees it."""
    marks: list[Any] = []
    if typing.get_origin(annotation) is Annotated:
        annotation, *marks = typing.get_args(annotation)
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    most = next((m.most for m in marks if isinstance(m, schema.Items)), schema.DEFAULT_ITEMS.most)
    if origin is tuple:
        return f"list ≤ {most} of ({type_in_words(arguments[0])})"
    if origin is dict:
        return f"map ≤ {most} of ({type_in_words(arguments[0])}) to ({type_in_words(arguments[1])})"
    if origin in (typing.Union, types.UnionType):
        return f"{type_in_words(arguments[0])} or nil"
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return " / ".join(f'"{member.value}"' for member in annotation)
    if dataclasses.is_dataclass(annotation):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"  # type: ignore[union-attr]
    return _plain(annotation, marks)


def fields_table(kind: Any) -> str:
    """The fields of a record, in the order of the wire."""
    hints = typing.get_type_hints(kind, include_extras=True)
    lines = ["| field | on the wire | |", "|---|---|---|"]
    for field in dataclasses.fields(kind):
        has_default = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        )
        note = "may be left out" if has_default else ""
        lines.append(f"| `{field.name}` | {type_in_words(hints[field.name])} | {note} |")
    return "\n".join(lines)


def records() -> list[type]:
    """Dataclasses that messages are made of, in the order in which they are first needed."""
    found: list[type] = []

    def look(annotation: Any) -> None:
        for part in typing.get_args(annotation):
            look(part)
        if dataclasses.is_dataclass(annotation) and isinstance(annotation, type) and annotation not in found:
            found.append(annotation)
            look_into(annotation)

    def look_into(kind: type) -> None:
        for annotation in typing.get_type_hints(kind, include_extras=True).values():
            look(annotation)

    for kind in MESSAGES.values():
        look_into(kind)
    return found


def _words(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "")


def _section(kind: type[Message]) -> str:
    title = f"### {kind.CODE} {kind.__name__}"
    return f"{title}\n\n{kind.DIRECTION.value} · {kind.KIND.name}\n\n{_words(kind)}\n\n{fields_table(kind)}\n"


def protocol_page() -> str:
    """docs/protocol.md."""
    parts = [
        NOTE,
        "# The protocol\n",
        f"Version {VERSION} (oldest still spoken: {VERSION_MIN}). C is the controller, A an agent.\n",
        "A frame is a 4-byte big-endian length, a kind byte and a body; the length counts kind and body.\n"
        "The body is msgpack: `[code, [fields in order]]`. LOG and BULK bodies are a 2-byte header length,\n"
        "that msgpack as header, then raw bytes. A kind or length that is not allowed ends the\n"
        "connection at the fifth byte, before anything is held. Fields are only ever appended, with a\n"
        "default; a receiver ignores those it does not know. The record: `tests/protocol/codes.txt`.\n",
        "## Frames\n",
        "| kind | byte | largest body | carries |\n|---|---|---|---|",
    ]
    parts[-1] += "".join(
        f"\n| {kind.name} | {kind.value} | {bytes_in_words(CAPS[kind])} | {KINDS[kind]} |" for kind in Kind
    )
    parts.append("\n## Messages\n")
    overview = ["| code | message | direction | kind | |", "|---|---|---|---|---|"]
    for _, kind in sorted(MESSAGES.items()):
        first = _words(kind).split("\n\n")[0].replace("\n", " ").replace("|", "\\|")
        link = f"[{kind.__name__}](#{kind.CODE}-{kind.__name__.lower()})"
        overview.append(f"| {kind.CODE} | {link} | {kind.DIRECTION.value} | {kind.KIND.name} | {first} |")
    parts.append("\n".join(overview) + "\n")
    parts += [_section(kind) for _, kind in sorted(MESSAGES.items())]
    parts.append("## Records\n")
    parts += [f"### {kind.__name__}\n\n{_words(kind)}\n\n{fields_table(kind)}\n" for kind in records()]
    return "\n".join(parts)


def member_words(kind: type[enum.Enum]) -> dict[str, str]:
    """What the ``#:`` comments above an Enum's members, or the strings below them, say."""
    source = textwrap.dedent(inspect.getsource(kind))
    lines = source.splitlines()
    said: dict[str, str] = {}
    body = ast.parse(source).body[0]
    members = getattr(body, "body", [])
    for place, node in enumerate(members):
        if not isinstance(node, ast.Assign) or not isinstance(node.targets[0], ast.Name):
            continue
        words: list[str] = []
        above = node.lineno - 2
        while above >= 0 and lines[above].strip().startswith("#:"):
            words.insert(0, lines[above].strip()[2:].strip())
            above -= 1
        after = members[place + 1] if place + 1 < len(members) else None
        if not words and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            words.append(" ".join(str(after.value.value).split()))
        said[node.targets[0].id] = " ".join(words)
    return said


def diagram(transitions: dict[Any, dict[Any, Any]]) -> str:
    """A table of transitions as a mermaid state diagram."""
    targets = {after for row in transitions.values() for after in row.values()}
    lines = ["```mermaid", "stateDiagram-v2"]
    lines += [f"    [*] --> {state.value}" for state in transitions if state not in targets]
    for before, row in transitions.items():
        by_target: dict[Any, list[str]] = {}
        for trigger, after in row.items():
            by_target.setdefault(after, []).append(str(getattr(trigger, "value", trigger)))
        for after, triggers in by_target.items():
            if after is not before:
                lines.append(f"    {before.value} --> {after.value}: {', '.join(triggers)}")
    lines += [
        f"    {state.value} --> [*]" for state, row in transitions.items() if set(row.values()) <= {state}
    ]
    return "\n".join([*lines, "```"])


def states_page() -> str:
    """docs/states.md."""
    parts = [NOTE, "# State machines\n"]
    for (name, table_name), title in MACHINES.items():
        transitions = getattr(importlib.import_module(name), table_name)
        kind = type(next(iter(transitions)))
        rows = [f"| {kind[member].value} | {said} |" for member, said in member_words(kind).items()]
        table = "\n".join(["| state | |", "|---|---|", *rows])
        parts.append(
            f"## {title}\n\n{_words(kind)} (`{name}.{table_name}`)\n\n{diagram(transitions)}\n\n{table}\n"
        )
    return "\n".join(parts)


CONTEXT = """\
# The additional context

What a run is told beside its command line, in madengine's words:

```
phalanx run --tags llama --additional-context-file site.json -c '{"slurm": {"nodes": 4}}'
```

- `-c`, `--additional-context` takes JSON or a Python literal, `--additional-context-file` a JSON file.
- The later goes over the earlier: presets, model card, manifest, file, command line. `--dry-run` shows for
  each value where it is from. Over a file, a key of the command line goes whole, and what is lost by that
  is said in a warning; over a manifest, the keys of environments, `docker_mounts`, `slurm` and
  `distributed` go one by one.
- What says the same in other words counts as the same: `slurm.nodes` on the command line goes over
  `distributed.nnodes` of the file.
- A key that is not known is refused with the nearest spelling. `--unknown-keys warn` (or
  `PHALANX_UNKNOWN_KEYS=warn`) makes that a warning. Keys that begin with `_` are comments, except names
  such as `_JAVA_OPTIONS` in an environment.
- `${NAME}` as a whole value is the value of the variable NAME on the login node. One that is not set is
  refused, and so is a placeholder within a longer text, or in a name. Names and sources that look like
  secrets (`HF_TOKEN`, `MAD_SECRETS_X`) are secrets: they may only stand in environments, and are shown
  nowhere.
- Nothing is guessed: a run without `gpu_vendor` and `guest_os` goes by its nodes. Only the choice of a
  Dockerfile takes AMD and UBUNTU where nothing is said.
"""

WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "anything"}


def key_in_words(annotation: Any) -> str:
    """The type of a key as a reader of the table sees it."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return key_in_words(arguments[0])
    if origin in (typing.Union, types.UnionType):
        kinds = [key_in_words(part) for part in arguments if part is not types.NoneType]
        return " or ".join(kind for kind in dict.fromkeys(kinds) if kind != "whole number" or len(kinds) < 3)
    if origin is list:
        return f"list of {key_in_words(arguments[0])}"
    if origin is dict:
        inner = key_in_words(arguments[1])
        return "object" if inner in ("anything", "object") else f"object of {inner}"
    if origin is typing.Literal:
        return " / ".join(f"`{word}`" for word in arguments if word)
    return WORDS.get(annotation, "object")


def keys_table(model: Any, unused: tuple[str, ...] = ()) -> str:
    """The keys of a block."""
    lines = ["| key | | what it does | |", "|---|---|---|---|"]
    for name, info in model.model_fields.items():
        kind, what = key_in_words(info.annotation), (info.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {kind} | {what} | {'not yet' if name in unused else ''} |")
    return "\n".join(lines) + "\n"


def context_page() -> str:
    """docs/context.md."""
    blocks = (
        ("slurm", context_schema.Slurm, context_schema.UNUSED_SLURM),
        ("distributed", context_schema.Distributed, ()),
        ("distributed.sglang_disagg, distributed.vllm_disagg", context_schema.Disaggregated, ()),
        ("distributed.primus", context_schema.Primus, ()),
        ("launcher", context_schema.Launcher, ()),
        ("deployment_config, deploy", context_schema.Deployment, ()),
        ("tools", context_schema.ToolEntry, ()),
        ("pre_scripts, post_scripts", context_schema.ScriptEntry, ()),
        ("data", context_schema.DataEntry, ()),
    )
    parts = [NOTE, CONTEXT, '## Keys\n\n"not yet": accepted, and nothing acts on it in this version.\n']
    parts.append(keys_table(context_schema.ContextInput, context_schema.UNUSED))
    parts += [f"## {title}\n\n{keys_table(model, unused)}" for title, model, unused in blocks]
    parts.append(
        "## Presets\n\n"
        "What models on slurm get when nobody says otherwise, not even their cards. Commands get none.\n"
        "What is in `-amd` is left out where `gpu_vendor` is NVIDIA. `--no-exclusive` shares nodes.\n"
    )
    rows = ["| preset | | |", "|---|---|---|"]
    for name in presets.names():
        for block, settings in presets.document(name).items():
            rows += [
                f"| {name} | `{block}.{key}` | `{str(value).lower() if value is True else value}` |"
                for key, value in settings.items()
            ]
    return "\n".join([*parts, *rows])


TOOLS = """\
# Tools

Profilers and tracers around a model's script. A context asks for them, each by name:

```
phalanx run --tags llama -c '{"tools": [{"name": "rocprofv3_memory"}, {"name": "gpu_info_power_profiler"}]}'
```

- `cmd` of an entry stands instead of the tool's own, `env_vars` goes over its variables one by one. A
  name that is not known is refused with the nearest, and so is one that is there twice.
- For tools A, B: pre-scripts of B, then of A, the user's `pre_scripts`, the system's details; then `cmd_B
  cmd_A script`; then the user's `post_scripts`, those of A, those of B. The same command stands there
  once. All of it is made anew for each model.
- Scripts are paths of the project, or of what phalanx brings below `scripts/common`; they run as
  `bash NAME ARGS` in the model's folder.
- A command is code, and needs a shell when it says so (`echo x &&`, `$RANK`, quotes). The words of the
  script never pass through that shell: it gets them as arguments.
- Before a model runs, each node looks in its own container for the programs that the tools need. One that
  is not there is refused by the names of tool and program; what the submission host has does not count,
  and no tool is left out or renamed in silence.

## The tools file

`./scripts/common/tools.json` of the project: `{"tools": {NAME: {...}}}`. It lies over phalanx's own
definitions; what it says of a name replaces theirs whole. Unknown keys are errors, keys that begin with
`_` are comments. `needs`, `leaves` and `about` are phalanx's own.
"""
TOOLS_BUNDLED = """\
## The tools that come with phalanx

They are files of `templates/phalanx/templates/tools`, and appear in the workspace as `scripts/common`; a
file of the project with the same path goes before. Beside what a tool leaves, everything in
`NAME_output/` comes back.
"""
TOOLS_NOTES = """\
## What they do, and what was tried

All of them were tried with programs that answer as the real ones do. **None has run on a GPU yet**:
options are from the documentation of the profilers, which the comments of `tools.json` name, and the
lines and answers that are parsed are those of the libraries and of the `-smi` programs as documented or
as users posted them.

- `gpu_info_*`: one row for each sample, `time_s,elapsed_s` and a column for each GPU (`gpu0_power_w`,
  `gpu0_vram_mib`). `*_SAMPLING_RATE` is in seconds; a program that takes longer to answer sets the pace.
  `*_DUAL_GCD=true` leaves out the second die of each package, whose power is in the value of the first.
- `*_trace` of libraries: `library_trace.csv` has `library,call,times,arguments`, a row for each kind of
  call. Their lines are taken out of the log; all other output passes as it came. Logging slows a model
  down.
- `rocprofv3_compute` and `rocprofv3_agent_counter` take two counters each; for others give a `cmd` of
  your own (`rocprofv3-avail list --pmc` says which a GPU has).
- `rocprofv3_pc_sampling` uses a beta of AMD that, in their words, may freeze the hardware.
- `therock_check` says whether ROCm is a build of TheRock, by `share/therock/therock_manifest.json` or
  `dist_info.json`, and fails without one only where `THEROCK_REQUIRED` is true.

## The system's details

`scripts/common/pre_scripts/run_rocenv_tool.sh` runs last before the model and writes `<model>_env.csv`
(`section,name,value`): operating system, kernel, CPU, memory, GPUs, ROCm and CUDA, key packages, and
variables of known purpose, none that may be a secret. `rocenv_mode` `full` has more of each. It needs
`sh` alone, installs nothing, has a deadline for each program and for all, and never fails a model. Each
AMD GPU is printed as `Name : gfx942` too.
"""


def tools_page() -> str:
    """docs/tools.md."""
    known = definitions(HERE)
    rows = ["| tool | | needs | leaves | variables |", "|---|---|---|---|---|"]
    for name, tool in known.items():
        made = stack(chosen(Context(tools=(Tool(name),)), known, HERE))
        needs = "<br>".join(f"`{program}`".replace("|", "` or `") for _, program in made.needs)
        leaves = "<br>".join(
            f"`{pattern}`"
            for pattern in tool.leaves or made.collect
            if tool.leaves or f"{name}_output" in tool.command
        )
        variables = "<br>".join(f"`{key}={value}`" for key, value in tool.env.items())
        rows.append(f"| `{name}` | {tool.about} | {needs} | {leaves} | {variables} |")
    return "\n".join(
        [
            NOTE,
            TOOLS,
            keys_table(tools_schema.ToolDefinition),
            TOOLS_BUNDLED,
            "\n".join(rows) + "\n",
            TOOLS_NOTES,
        ]
    )


PAGES = {
    "context.md": context_page,
    "protocol.md": protocol_page,
    "states.md": states_page,
    "tools.md": tools_page,
}


def main() -> int:
    parser = argparse.ArgumentParser(description="generated documentation")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is stale")
    check = parser.parse_args().check
    stale = []
    for name, make in PAGES.items():
        page, text = HERE / name, make().rstrip() + "\n"
        if page.exists() and page.read_text(encoding="utf-8") == text:
            continue
        stale.append(name)
        if not check:
            page.write_text(text, encoding="utf-8")
            print(f"wrote docs/{name}")
    if check and stale:
        print(f"stale: {', '.join('docs/' + name for name in stale)}; run `make docs`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
