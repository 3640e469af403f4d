"""The additional context: two syntaxes, two sources, typed keys, and errors that help."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from phalanx.controller.workflow.context import build_defaults, load_context
from phalanx.controller.workflow.context_parts import DataSource, ErrorScan, Script, Tool
from phalanx.controller.workflow.errors import InputError


def test_json_and_python_literals_say_the_same() -> None:
    by_json = load_context('{"slurm": {"nodes": 2, "exclusive": true}, "gpu_vendor": "amd"}')
    by_literal = load_context("{'slurm': {'nodes': 2, 'exclusive': True}, 'gpu_vendor': 'AMD'}")
    assert by_json == by_literal
    assert by_json.slurm is not None
    assert (by_json.slurm.nodes, by_json.slurm.exclusive, by_json.gpu_vendor) == (2, True, "AMD")


def test_the_command_line_replaces_whole_keys_of_the_file_and_origins_say_so(tmp_path: Path) -> None:
    file = tmp_path / "ctx.json"
    file.write_text(json.dumps({"docker_env_vars": {"A": "1", "B": 2}, "guest_os": "UBUNTU"}))
    context = load_context('{"docker_env_vars": {"A": "3"}}', file)
    assert context.docker_env == {"A": "3"}
    assert context.origin("docker_env_vars.A") == "--additional-context: docker_env_vars.A"
    assert context.origin("guest_os") == f"{file}: guest_os"


def test_numbers_become_text_where_text_is_meant() -> None:
    context = load_context('{"docker_env_vars": {"N": 8}, "slurm": {"gpus_per_node": 8, "time": 30}}')
    assert context.docker_env == {"N": "8"}
    assert context.slurm is not None
    assert (context.slurm.gpus_per_node, context.slurm.time) == ("8", "30")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"slrm": {}}', "slrm: it is not a known key; did you mean 'slurm'"),
        ('{"partition": "x"}', r"partition: it is not a key of the top level; it belongs under slurm: \{"),
        ('{"nnodes": 2}', "belongs under distributed"),
        ('{"image": "x"}', "the image of a run is MAD_CONTAINER_IMAGE"),
        (
            '{"slurm": {"partitoin": "x"}}',
            r"slurm.partitoin: it is not a known key; did you mean 'partition'",
        ),
        ('{"slurm": {"nodes": "two"}}', "slurm.nodes: expected a whole number, found text 'two'"),
        ('{"slurm": {"nodes": 0}}', "slurm.nodes: .*greater than or equal to 1, found the number 0"),
        ('{"slurm": "gpu"}', "slurm: expected an object, found text 'gpu'"),
        ('{"docker_env_vars": {"A": null}}', "docker_env_vars.A: expected text or .*, found null"),
        ('{"gpu_vendor": "INTEL"}', "gpu_vendor: expected AMD or NVIDIA, found 'INTEL'"),
        ("[]", "expected an object, found a list"),
        ("{'a': open('x')}", "nor is it a Python literal"),
        ("{1: 2}", "1: keys are text"),
        ("{'slurm': {'nodes': 1, 'nodes': 2}}", "the key 'nodes' is given twice"),
        ("{'tools': {'a'}}", "tools: found set"),
        ('{"timeout": 1e999}', "timeout: found a number too large"),
        ('{"slurm": {"nodes": true}}', "slurm.nodes: expected a whole number, found true"),
        ('{"slurm": {"extra": ["ls"]}}', r"slurm.extra\[0\]: expected an option such as"),
        ('{"data": {"x": {"gcs": {"path": "y"}}}}', "data.x.gcs: expected 'custom', 'local', 'minio', 'nas'"),
        ('{"rocenv_mode": "ful"}', "rocenv_mode: expected 'lite' or 'full', found text 'ful'"),
        ('{"log_error_pattern_scan": "flase"}', "log_error_pattern_scan: expected true or false"),
        ('{"tools": ["rpd"]}', r"tools\[0\]: expected an object, found text 'rpd'"),
        ('{"docker_env_vars": {"a[0]": null}}', r"docker_env_vars.a\[0\]: expected text"),
        ('{"k8s": {}}', "there is no kubernetes target yet"),
    ],
)
def test_a_bad_context_names_the_key_and_the_way_out(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        load_context(text)


def test_keys_of_madengine_that_do_nothing_here_are_listed_once() -> None:
    context = load_context(
        '{"tools": [{"name": "a"}], "slurm": {"output_dir": "x", "nodes": 1}, "debug": true, "data": {}}'
    )
    assert context.warnings == ("--additional-context: this version does not act on slurm.output_dir, debug",)


def test_keys_with_an_underscore_in_front_are_comments() -> None:
    context = load_context('{"_why": "x", "slurm": {"_note": 1, "nodes": 3}}')
    assert context.slurm is not None
    assert (context.slurm.nodes, context.warnings) == (3, ())


def test_an_error_in_the_file_is_told_as_the_files(tmp_path: Path) -> None:
    file = tmp_path / "ctx.json"
    file.write_text('{"slurm": 3}')
    with pytest.raises(InputError, match=f"cannot read {file}: slurm"):
        load_context('{"slurm": {}}', file)


def test_node_lists_may_be_lists() -> None:
    context = load_context('{"slurm": {"nodelist": ["n1", "n2"], "exclude": "n3, n4"}}')
    assert context.slurm is not None
    assert (context.slurm.nodelist, context.slurm.exclude) == ("n1,n2", "n3,n4")


def test_nothing_given_is_an_empty_context() -> None:
    assert load_context() == load_context("  ") == load_context("{}")


def test_what_a_later_part_acts_on_is_typed() -> None:
    context = load_context(
        json.dumps(
            {
                "tools": [{"name": "rpd"}, {"name": "mine", "cmd": "x --", "env_vars": {"N": 1}}],
                "pre_scripts": [{"path": "a.sh", "args": 3}],
                "post_scripts": [{"path": "b.sh"}],
                "data": {"d": {"nas": {"path": "/n", "readwrite": "true", "mirrorlocal": True}}},
                "log_error_pattern_scan": "no",
                "log_error_patterns": ["(", "x"],
                "log_error_benign_patterns": ["ok"],
                "rocenv_mode": "full",
                "generate_sys_env_details": False,
                "MAD_ROCM_PATH": "/opt/rocm",
                "host_os": "HOST_UBUNTU",
                "slurm": {"modules": ["rocm"], "enable_node_check": False},
                "distributed": {"sglang_disagg": {"prefill_nodes": 1}, "primus": {"config_path": "x.yaml"}},
            }
        )
    )
    assert context.tools == (Tool("rpd"), Tool("mine", "x --", {"N": "1"}))
    assert (context.pre_scripts, context.post_scripts) == ((Script("a.sh", "3"),), (Script("b.sh"),))
    assert context.data == {"d": {"nas": DataSource("/n", mirror="true", read_write=True)}}
    assert context.error_scan == ErrorScan(False, ("(", "x"), ("ok",))
    assert (context.rocenv_mode, context.system_details, context.rocm_path) == ("full", False, "/opt/rocm")
    assert {
        name: context.document[name]
        for name in ("ctx_test", "host_os", "numa_balancing")
        if name in context.document
    } == {"host_os": "HOST_UBUNTU"}
    assert context.slurm is not None
    assert (context.slurm.modules, context.slurm.enable_node_check) == (("rocm",), False)
    assert context.blocks["distributed"]["sglang_disagg"] == {"prefill_nodes": 1}


def test_vendor_and_guest_are_assumed_for_builds_and_never_for_runs() -> None:
    context = load_context('{"guest_os": "centos"}')
    assert (context.gpu_vendor, context.guest_os) == ("", "CENTOS")
    assumed = build_defaults(context)
    assert (assumed.gpu_vendor, assumed.gpu_vendor_origin) == ("AMD", "default")
    assert (assumed.guest_os, assumed.guest_os_origin) == ("CENTOS", "--additional-context: guest_os")


def test_an_underscore_is_a_comment_but_not_in_the_name_of_a_variable() -> None:
    text = '{"docker_env_vars": {"_JAVA_OPTIONS": "-Xmx1g", "_why": "x"}, "tools": [{"name": "a", "_b": 1}]}'
    context = load_context(text)
    assert context.docker_env == {"_JAVA_OPTIONS": "-Xmx1g"}
    assert context.tools == (Tool("a"),)
