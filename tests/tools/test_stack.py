"""Tools around a script: their order, the command, and words that arrive as they were, whatever they hold."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from phalanx.controller.plan.tools import ToolStack, check_argv, stack, wrap
from phalanx.controller.workflow.scripts import FoundScript
from phalanx.controller.workflow.tools import ChosenTool

from .place import SHELLS, Place, shell

SCRIPT = ("bash", "run.sh", "--size", "3")


def chosen(name: str, command: str = "", **more: object) -> ChosenTool:
    parts: dict[str, object] = {
        "env": {},
        "pre_scripts": (),
        "post_scripts": (),
        "needs": None,
        "leaves": (),
        **more,
    }
    return ChosenTool(name, f"tools.json: tools.{name}", command, "", **parts)  # type: ignore[arg-type]


def script(name: str) -> FoundScript:
    return FoundScript(f"/proj/s/{name}", "", "tools.json")


def full(name: str) -> ChosenTool:
    return chosen(
        name,
        f"cmd_{name}",
        env={"COMMON": (name, f"of {name}"), name: ("1", f"of {name}")},
        pre_scripts=(script(f"pre_{name}_1.sh"), script(f"pre_{name}_2.sh")),
        post_scripts=(script(f"post_{name}_1.sh"), script(f"post_{name}_2.sh")),
        leaves=(f"{name}.csv", "shared.csv"),
    )


def test_the_order_is_the_verified_one() -> None:
    users, details = [script("user_pre.sh")], script("run_rocenv_tool.sh")
    found = stack([full("A"), full("B")], users, [script("user_post.sh")]).then(details)
    assert [run.name for run in found.pre] == [
        *("pre_B_1.sh", "pre_B_2.sh", "pre_A_1.sh", "pre_A_2.sh"),
        *("user_pre.sh", "run_rocenv_tool.sh"),
    ]
    assert wrap(found, (), SCRIPT) == ("cmd_B", "cmd_A", *SCRIPT)
    assert [run.name for run in found.post] == [
        *("user_post.sh", "post_A_1.sh", "post_A_2.sh", "post_B_1.sh", "post_B_2.sh"),
    ]


def test_the_environment_of_the_later_tool_goes_over_the_earlier_with_its_origin() -> None:
    assert stack([full("A"), full("B")]).env == {
        "COMMON": ("B", "of B"),
        "A": ("1", "of A"),
        "B": ("1", "of B"),
    }


def test_what_is_brought_back_is_what_tools_say_and_their_folder() -> None:
    found = stack([full("A"), full("B")])
    assert found.collect == ("A.csv", "shared.csv", "A_output/*", "B.csv", "B_output/*")


def test_nothing_around_a_model_is_nothing() -> None:
    assert stack([]) == ToolStack()
    assert wrap(ToolStack(), (), SCRIPT) == SCRIPT
    assert check_argv(ToolStack()) is None


def test_a_second_stack_knows_nothing_of_the_first() -> None:
    tools = [full("A"), full("B")]
    users = [script("user.sh")]
    first = stack(tools, users, users).then(script("details.sh"))
    second = stack(tools, users, users).then(script("details.sh"))
    assert (second, len(second.pre), len(second.post)) == (first, 6, 5)
    assert users == [script("user.sh")]


def test_the_same_command_is_there_once() -> None:
    tools = [chosen("a", "trace --"), chosen("b", "other"), chosen("c", "trace --"), chosen("d")]
    assert stack(tools).commands == ("other", "trace --")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("rocprofv3 --stats -d x_output --", ("rocprofv3", "--stats", "-d", "x_output", "--")),
        ("  numactl   -N 0\t-m 0 ", ("numactl", "-N", "0", "-m", "0")),
        ("python3 ../scripts/common/tools/x.py", ("python3", "../scripts/common/tools/x.py")),
        ("prof -o %hostname%/%pid% --a=b,c", ("prof", "-o", "%hostname%/%pid%", "--a=b,c")),
    ],
)
def test_a_plain_command_needs_no_shell(command: str, words: tuple[str, ...]) -> None:
    assert wrap(stack([chosen("a", command)]), ("env", "-i"), SCRIPT) == (*words, "env", "-i", *SCRIPT)


@pytest.mark.parametrize(
    "command",
    [
        "echo hello &&",
        "A=1",
        "time",
        "source x.sh;",
        ". x.sh;",
        "prof $RANK --",
        "prof 'a b' --",
        "prof ~/x",
        "prof *.cfg",
        "prof {a,b}",
        "cd x;",
        "! prof",
        "prof `id`",
        "prof \\",
        "prof >x",
        "exec",
    ],
)
def test_a_command_that_is_code_gets_a_shell_and_the_script_as_arguments(command: str) -> None:
    found = wrap(stack([chosen("a", "plain --"), chosen("b", command)]), ("nice",), SCRIPT)
    assert found == ("bash", "-c", f'{command} plain -- "$@"', "bash", "nice", *SCRIPT)


EVIL = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30
) | st.sampled_from(
    ["$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "$HOME", "*", "a\nb", "",
     "-c", "--", "&& touch pwned", "\\", "#", "~", "!!", "{a,b}", "$IFS", "${PATH}"]
)  # fmt: skip
COMMANDS = [[], ["env"], ["echo before &&"], ["env X=1", "true &&"], ["nice -n 0", "X=1"], ["env --", "time"]]


@pytest.mark.local
@settings(max_examples=60)
@given(st.lists(EVIL, max_size=6), st.sampled_from(COMMANDS))
def test_the_words_arrive_at_the_script_unchanged(words: list[str], commands: list[str]) -> None:
    tools = [chosen(f"t{place}", command) for place, command in enumerate(commands)]
    argv = wrap(stack(tools), (), ("sh", "-c", 'printf "%s\\0" "$@"', "sh", *words, "end"))
    done = subprocess.run(argv, capture_output=True, check=True)
    assert done.stdout.decode().removeprefix("before\n").split("\0")[:-1] == [*words, "end"]
    assert not Path("pwned").exists()


@pytest.mark.local
def test_the_status_of_the_script_is_that_of_the_command(place: Place) -> None:
    for commands in (["env"], ["true &&"], ["env", "true &&"]):
        found = stack([chosen(f"t{number}", one) for number, one in enumerate(commands)])
        assert place.run(*wrap(found, (), ("sh", "-c", "exit 7"))).returncode == 7
    found = stack([chosen("t", "false &&")])
    assert place.run(*wrap(found, (), ("sh", "-c", "exit 0"))).returncode == 1


@pytest.mark.parametrize(
    ("one", "needs"),
    [
        (chosen("a", "prof --x"), ("prof",)),
        (chosen("a", "/opt/x/prof"), ("/opt/x/prof",)),
        (chosen("a", "time prof"), ()),
        (chosen("a", "X=1 prof"), ()),
        (chosen("a", "$PROF x"), ()),
        (chosen("a", ""), ()),
        (chosen("a", "prof", needs=()), ()),
        (chosen("a", "sh wrapper.sh", needs=("x|y", "z")), ("x|y", "z")),
    ],
)
def test_what_a_tool_needs_is_said_or_the_first_word(one: ChosenTool, needs: tuple[str, ...]) -> None:
    assert stack([one]).needs == tuple(("a", need) for need in needs)


@pytest.mark.local
@pytest.mark.parametrize("name", SHELLS)
def test_a_tool_whose_program_is_not_there_is_refused_by_name(name: str, place: Place) -> None:
    tools = [
        chosen("fine", needs=("here",)),
        chosen("rocprofv3", "rocprofv3 --"),
        chosen("power", needs=("nowhere|here", "amd-smi|rocm-smi")),
    ]
    place.program("here", "exit 0")
    argv = check_argv(stack(tools))
    assert argv is not None and argv[0] == "sh"
    done = place.run(*shell(name), *argv[1:])
    assert done.returncode == 127
    assert done.stderr.splitlines() == [
        "cannot use tool rocprofv3: rocprofv3 is not in the image; provide it, or leave the tool out",
        "cannot use tool power: none of amd-smi, rocm-smi is in the image; provide it, or leave the tool out",
    ]
    for program in ("rocprofv3", "rocm-smi"):
        place.program(program, "exit 1")
    done = place.run(*shell(name), *argv[1:])
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.local
def test_where_a_program_is_missing_is_said_in_the_callers_words(place: Place) -> None:
    argv = check_argv(stack([chosen("t", "/no/such/prof --")]), "on this node")
    assert argv is not None
    assert "cannot use tool t: /no/such/prof is not on this node" in place.run(*argv).stderr
