"""The lab by hand: `python -m tests.lab up -n 4 --docker`. Parses, calls, prints; nothing is decided here."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable
from dataclasses import asdict
from typing import NoReturn

from tests.lab import image, lifecycle
from tests.lab.errors import LabError
from tests.lab.lab import Lab

Verb = Callable[[argparse.Namespace], None]


def _up(args: argparse.Namespace) -> None:
    lab = Lab.up(
        name=args.name,
        nodes=args.nodes,
        docker=args.docker,
        slurm=not args.no_slurm,
        rate=args.rate,
        cpus=args.cpus_per_node,
        gpus=args.gpus,
        disk=args.disk,
        share=args.share,
        other_engine=args.other_engine,
        other_nodes=[name for name in args.other_nodes.split(",") if name],
        fresh=args.fresh,
    )
    print(f"lab {lab.name}: n1 to {lab.nodes[-1]} are up; login at {lab.login_address}")
    print(f'next: eval "$(python -m tests.lab env --name {lab.name})"; srun -N{len(lab.nodes)} hostname')


def _down(args: argparse.Namespace) -> None:
    print(f"lab {args.name}: {'is down' if lifecycle.down(args.name) else 'was not up'}")


def _status(args: argparse.Namespace) -> None:
    found = Lab.attach(args.name).status()
    if args.json:
        print(json.dumps([asdict(each) for each in found], indent=1))
        return
    print(f"{'node':<6} {'address':<14} {'power':<7} {'cable':<7} {'slurm':<11} {'engine':<7} init")
    for each in found:
        print(
            f"{each.node:<6} {each.address:<14} {each.power:<7} {each.cable:<7} "
            f"{each.slurm or '-':<11} {each.engine or '-':<7} {each.init or '-'}"
        )


def _stats(args: argparse.Namespace) -> None:
    found = Lab.attach(args.name).stats()
    if args.json:
        print(json.dumps({name: asdict(each) for name, each in found.items()}, indent=1))
        return
    print(f"{'node':<6} {'sent bytes':>15} {'received bytes':>15} {'cpu s':>9} {'memory MiB':>11}")
    for each in found.values():
        cpu = "-" if each.cpu_seconds is None else f"{each.cpu_seconds:.2f}"
        memory = "-" if each.memory_bytes is None else f"{each.memory_bytes / 2**20:.1f}"
        sent, received = ("-" if n is None else str(n) for n in (each.sent, each.received))
        print(f"{each.node:<6} {sent:>15} {received:>15} {cpu:>9} {memory:>11}")


def _env(args: argparse.Namespace) -> None:
    for key, value in Lab.attach(args.name).env().items():
        print(f"export {key}={shlex.quote(value)}")


def _exec(args: argparse.Namespace) -> NoReturn:
    lab = Lab.attach(args.name)
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise LabError("cannot run nothing: no command was given; write exec n1 -- hostname")
    argv = lab.enter(args.node, command)
    sys.stdout.flush()
    # This process becomes the command that the user typed.
    os.execvpe(argv[0], argv, {**os.environ, **lab.env()})  # noqa: S606


def _image(args: argparse.Namespace) -> None:
    print(image.base_image(rebuild=args.rebuild))


def _rate(args: argparse.Namespace) -> None:
    Lab.attach(args.name).rate(args.node, args.rate)


def _cut(args: argparse.Namespace) -> None:
    Lab.attach(args.name).cut(args.node, args.way)


def _hide(args: argparse.Namespace) -> None:
    print("\n".join(Lab.attach(args.name).hide(args.node, args.path)))


def _unhide(args: argparse.Namespace) -> None:
    print("\n".join(Lab.attach(args.name).unhide(args.node, args.path)))


def _fill(args: argparse.Namespace) -> None:
    print(f"{args.node}: {Lab.attach(args.name).fill(args.node, args.leave)} bytes free")


def _unfill(args: argparse.Namespace) -> None:
    print(f"{args.node}: {Lab.attach(args.name).unfill(args.node)} bytes free")


def _start(args: argparse.Namespace) -> None:
    Lab.attach(args.name).start_service(args.node, args.service)


def _on_node(method: Callable[[Lab, str], None]) -> Verb:
    def run(args: argparse.Namespace) -> None:
        method(Lab.attach(args.name), args.node)

    return run


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    common = argparse.ArgumentParser(add_help=False)
    default = os.environ.get("PHALANX_LAB", "lab")
    common.add_argument("--name", default=default, help="which lab (default: $PHALANX_LAB, or lab)")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(word: str, run: Verb, about: str, *positional: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(word, parents=[common], help=about, description=about)
        added.set_defaults(run=run)
        for each in positional:
            added.add_argument(each)
        return added

    _up_arguments(verb("up", _up, "bring a lab up; the same arguments again do nothing"))
    verb("down", _down, "remove every trace of a lab")
    for word, run, about in (
        ("status", _status, "power, cable, Slurm's word and engine of each node"),
        ("stats", _stats, "bytes through each cable, CPU seconds and memory of each node"),
    ):
        verb(word, run, about).add_argument("--json", action="store_true")
    verb("env", _env, "export lines for srun and salloc from the login side")
    verb("exec", _exec, "run a command on a node", "node").add_argument("command", nargs=argparse.REMAINDER)
    verb("rate", _rate, "shape a node's cable (or login's): 20mbit, or max", "node", "rate")
    verb("kill", _on_node(Lab.kill), "cut a node's power", "node")
    verb("boot", _on_node(Lab.boot), "switch a killed node on", "node")
    verb("freeze", _on_node(Lab.freeze), "stop every process of a node", "node")
    verb("thaw", _on_node(Lab.thaw), "let a frozen node go on", "node")
    cut = verb("cut", _cut, "pull a node's cable (or login's)", "node")
    cut.add_argument(
        "--way", choices=["both", "out", "in"], default="both", help="out: only lose what it sends"
    )
    verb("join", _on_node(Lab.join), "put the cable back", "node")
    verb("hide", _hide, "cover paths (a quoted pattern) on one node", "node", "path")
    verb("unhide", _unhide, "uncover them; all of the node's without PATH", "node").add_argument(
        "path", nargs="?", default=""
    )
    verb("fill", _fill, "fill a node's disk", "node").add_argument("--leave", default="0", help="such as 50M")
    verb("unfill", _unfill, "give the space back", "node")
    verb("start", _start, "start a node's daemon again", "node").add_argument(
        "service", choices=["docker", "slurmd"]
    )
    build = verb("image", _image, "build the base image, or find it built; prints the tar's path")
    build.add_argument("action", choices=["build"])
    build.add_argument("--rebuild", action="store_true")
    return parser


def _up_arguments(up: argparse.ArgumentParser) -> None:
    up.add_argument("-n", "--nodes", type=int, default=4)
    up.add_argument("--docker", action="store_true", help="an engine on each node")
    up.add_argument("--no-slurm", action="store_true", help="no munge, slurmctld, slurmd")
    up.add_argument("--rate", default="max", help="of every cable, the login's too, such as 200mbit")
    up.add_argument("--cpus-per-node", type=int, default=4, help="what each node claims (default 4)")
    up.add_argument("--gpus", type=int, default=0, help="fake GPUs per node, for --gres")
    up.add_argument(
        "--disk", "--docker-disk", default="", help="a disk of that size for each node, such as 1G"
    )
    up.add_argument(
        "--share", action="append", default=[], metavar="PATH", help="let a path under /tmp through"
    )
    up.add_argument("--other-engine", default="", metavar="FOLDER", help="programs of another engine")
    up.add_argument("--other-nodes", default="", help="such as n2,n4: they run it, with its containerd store")
    up.add_argument("--fresh", action="store_true", help="if it is up, take it down first")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    lifecycle.interrupt_as_error()
    try:
        args.run(args)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("lab: interrupted", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
