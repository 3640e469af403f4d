"""Data sets in a plan: steps, places, environment, and credentials that are in none of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.plan.codec import from_json, to_json
from phalanx.controller.plan.data import DataInputs
from phalanx.controller.plan.data_access import access_of
from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.make import plan_for_tags, secrets_of
from phalanx.controller.plan.model import CasePlan, Plan, StepPlan
from phalanx.controller.workflow.context import load_context
from phalanx.controller.workflow.data import load_data
from phalanx.controller.workflow.errors import InputError

from tests.plan.making import models

CREDENTIALS: dict[str, Any] = {
    "MAD_MINIO": {"USERNAME": "canary-mu", "PASSWORD": "canary-mp", "MINIO_ENDPOINT": "minio:9000"},
    "MAD_AWS_S3": {"USERNAME": "canary-au", "PASSWORD": "canary-ap"},
    "NAS_NODES": [
        {"NAME": "nas1", "HOST": "10.0.0.1", "PORT": 2222, "USERNAME": "u", "PASSWORD": "canary-np"}
    ],
}
ALL = {
    "local": {"path": "/data/x"},
    "minio": {"path": "s3://bucket/a/b"},
    "nas": {"path": "/export/x"},
    "aws": {"path": "bucket/a/b"},
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "get.sh").write_text("true\n")
    return tmp_path


def made(
    project: Path, document: Any, data: str, *, mirror: str = "", entries: Any = None, **more: Any
) -> Plan:
    (project / "data.json").write_text(json.dumps(document))
    book = load_data(
        project / "data.json", "data.json", load_context(more.get("context", "")), required=False
    )
    access = access_of(CREDENTIALS if entries is None else entries, {"MAD_MINIO": "env:MAD_MINIO"})
    found = DataInputs(book, access, str(project), mirror, "--force-mirror-local" if mirror else "")
    inputs = models({"name": "m", "data": data}, data=found, nodes=2, **more)
    plan = plan_for_tags(inputs)
    assert from_json(to_json(plan)) == plan
    text = to_json(plan).decode() + describe(plan)
    for secret in secrets_of(inputs).values_by_name().values():
        assert "canary" not in text, secret
    return plan


def case(*given: Any, **more: Any) -> CasePlan:
    return made(*given, **more).cases[0]


def data_steps(one: CasePlan) -> list[StepPlan]:
    return [step for step in one.steps if step.name.startswith("data-")]


def request(one: CasePlan, step: int = 0) -> dict[str, Any]:
    argv = data_steps(one)[step].argv
    assert argv[:2] == ("phalanx-agent", "data")
    found: dict[str, Any] = json.loads(argv[2])
    return found


def test_a_data_set_is_a_step_beside_the_container_before_the_model(project: Path) -> None:
    one = case(project, {"d": ALL}, "d", image="i:1")
    assert [step.name for step in one.steps] == ["facts", "data-d", "main"]
    (step,) = data_steps(one)
    assert (step.per, step.where, step.deadline_s) == ("node", "host", 3600.0)
    assert [source["provider"] for source in request(one)["sources"]] == ["local", "minio", "nas", "aws"]
    (place,) = one.container.data
    assert (place.target, place.source, place.read_only, place.mirror) == ("/data_dlm_0", "/data/x", True, "")
    assert len(place.cache) == 40
    assert one.container.data_variable == "MAD_DATAHOME"
    assert one.env["MAD_DATANAME"].value == "d"
    assert one.library == "obstore"


def test_credentials_are_names_in_the_plan_and_values_for_stdin_alone(project: Path) -> None:
    (step,) = data_steps(case(project, {"d": ALL}, "d", image="i:1"))
    secret = {name for name, value in step.env.items() if value.secret}
    assert secret == {
        "MAD_MINIO_USERNAME", "MAD_MINIO_PASSWORD", "MAD_AWS_S3_USERNAME", "MAD_AWS_S3_PASSWORD",
        "NAS_NODES_0_USERNAME", "NAS_NODES_0_PASSWORD",
    }  # fmt: skip
    assert step.env["MAD_MINIO_PASSWORD"].origin == "env:MAD_MINIO: MAD_MINIO.PASSWORD"
    assert not any(value.value for name, value in step.env.items() if name in secret)


def test_only_the_providers_of_a_data_set_get_their_credentials(project: Path) -> None:
    (step,) = data_steps(case(project, {"d": {"nas": {"path": "/x"}}}, "d", image="i:1"))
    assert {name for name, value in step.env.items() if value.secret} == {
        "NAS_NODES_0_USERNAME",
        "NAS_NODES_0_PASSWORD",
    }


def test_local_data_needs_no_client_and_no_cache(project: Path) -> None:
    one = case(project, {"d": {"local": {"path": "/data/x", "readwrite": "true"}}}, "d", image="i:1")
    assert one.library == ""
    assert one.container.data[0].cache == ""
    assert one.container.data[0].read_only is False


def test_data_that_the_model_may_write_to_is_not_the_shared_copy(project: Path) -> None:
    one = case(project, {"d": {"minio": {"path": "b00/k", "readwrite": True}}}, "d", image="i:1")
    assert one.container.data[0].cache == ""


def test_homes_are_the_mounted_paths_in_order(project: Path) -> None:
    document = {"a": {"local": {"path": "/a", "home": "/data"}}, "b": {"local": {"path": "/b"}}}
    plan = made(project, document, "a,b", image="i:1")
    assert [place.target for place in plan.cases[0].container.data] == ["/data", "/data_dlm_1"]
    assert "MAD_DATAHOME=/data,/data_dlm_1   the node" in describe(plan)
    assert "a: /a (ro) → /data   (data.json: a.local)" in describe(plan)


def test_what_the_user_says_of_the_home_goes_before(project: Path) -> None:
    one = case(project, {"d": ALL}, "d", image="i:1", env=("MAD_DATAHOME=/mine",))
    assert one.container.data_variable == ""
    assert one.env["MAD_DATAHOME"].value == "/mine"


def test_a_process_is_told_by_the_node_where_the_data_is(project: Path) -> None:
    document = {"d": {"local": {"path": "/d", "home": "/data"}}}
    plan = made(project, document, "d", runtime="process")
    assert "MAD_DATAHOME=? where the data is on the node" in describe(plan)
    assert any("home is a place in a container" in words for words in plan.warnings)


def test_the_first_home_counts_for_all_providers_and_another_is_named(project: Path) -> None:
    document = {"d": {"local": {"path": "/d", "home": "/one"}, "nas": {"path": "/n", "home": "/two"}}}
    plan = made(project, document, "d", image="i:1")
    assert plan.cases[0].container.data[0].target == "/one"
    assert "data.json: d.nas: home '/two' is not used: the data set is at /one" in plan.warnings


def test_a_script_provides_data_in_the_container_and_is_shipped_at_its_path(project: Path) -> None:
    document = {"d": {"custom": {"path": "scripts/get.sh", "args": "--fast 'a b'"}, **ALL}}
    one = case(project, document, "d", image="i:1")
    assert [(step.name, step.where, step.deadline_s) for step in data_steps(one)] == [
        ("data-d", "case", 1200.0),
        ("data-d-size", "host", 3600.0),
    ]
    assert data_steps(one)[0].argv[4:] == ("/data_dlm_0", "/myworkspace/scripts/get.sh", "--fast", "a b")
    assert [source["provider"] for source in request(one, 1)["sources"]] == ["custom"]
    assert one.workspace[0].target == "scripts/get.sh"
    assert one.container.data[0].source == one.container.data[0].cache == ""
    document["d"]["custom"]["args"] = "--at $HOME"
    [words] = made(project, document, "d", image="i:1").warnings
    assert words.startswith("data.json: d.custom.args: $HOME reaches the script as it is written")
    process = case(project, document, "d", runtime="process")
    assert data_steps(process)[0].argv[4:6] == ("../.phalanx-data/0", "../../scripts/get.sh")


def test_a_mirror_is_a_folder_of_the_nodes(project: Path) -> None:
    minio = {"path": "b00/k", "mirrorlocal": "/scratch"}
    one = case(project, {"d": {"minio": minio}}, "d", image="i:1")
    assert one.container.data[0].mirror == "/scratch"
    forced = made(project, {"d": {"minio": minio}}, "d", image="i:1", mirror="/other")
    assert forced.cases[0].container.data[0].mirror == "/other"
    assert "d: /other/d → /data_dlm_0" in describe(forced)


def test_a_provider_without_its_credentials_is_no_error_and_says_so_on_the_node(project: Path) -> None:
    one = case(project, {"d": ALL}, "d", image="i:1", entries={})
    refused = {source["provider"]: source.get("refused", "") for source in request(one)["sources"]}
    assert refused["local"] == ""
    assert refused["minio"].startswith("there is no MAD_MINIO")
    assert refused["nas"].startswith("there are no NAS_NODES")
    assert refused["aws"] == ""  # public buckets need no signature
    assert one.library == "obstore"


def test_the_place_in_the_cache_is_that_of_the_same_data_and_no_other(project: Path) -> None:
    def key(document: Any, **more: Any) -> str:
        return case(project, {"d": document}, "d", image="i:1", **more).container.data[0].cache

    minio = {"minio": {"path": "b00/k"}}
    other = {"MAD_MINIO": {**CREDENTIALS["MAD_MINIO"], "MINIO_ENDPOINT": "http://elsewhere:9000"}}
    fresh = {"MAD_MINIO": {**CREDENTIALS["MAD_MINIO"], "PASSWORD": "canary-new"}}
    keys = [
        key(minio),
        key({"minio": {"path": "b00/l"}}),
        key({"aws": {"path": "b00/k"}}),
        key(minio, entries=other),
    ]
    assert len(set(keys)) == 4
    assert key(minio, entries=fresh) == keys[0]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"custom": {"path": "../x.sh"}}, "leaves the project's folder"),
        ({"custom": {"path": "scripts/none.sh"}}, "there is no file scripts/none.sh in"),
        ({"custom": {"path": "scripts/get.sh", "mirrorlocal": "/m"}}, "a script provides has no copy"),
        ({"local": {"path": "x"}}, "not an absolute path"),
        ({"local": {"path": "/etc"}}, "it is the node's own, not data"),
        ({"local": {"path": "/run/docker.sock"}}, "engine's socket"),
        ({"local": {"path": "/d", "mirrorlocal": "/m"}}, "needs no copy on the node"),
        ({"local": {"path": "/d", "home": "/proc"}}, "/proc of the container is taken"),
        ({"local": {"path": "/d", "home": "data"}}, "not an absolute path"),
        ({"minio": {"path": "s3://B/k"}}, "does not begin with a bucket"),
        ({"minio": {"path": "s3://bucket/../k"}}, "empty, . or .."),
        ({"minio": {"path": "s3://bucket/k", "mirrorlocal": "yes"}}, "'yes' is no absolute path"),
        ({"minio": {"path": "s3://bucket/k", "mirrorlocal": "/etc"}}, "it is the node's own"),
        ({"nas": {"path": "x"}}, "no absolute path"),
    ],
)
def test_what_no_node_could_use_is_refused_before_anything_is_touched(
    project: Path, entry: Any, words: str
) -> None:
    with pytest.raises(InputError, match=words) as refused:
        made(project, {"d": entry}, "d", image="i:1")
    assert "data.json: d." in str(refused.value)


def test_two_things_at_one_place_are_refused(project: Path) -> None:
    home = {"local": {"path": "/a", "home": "/data"}}
    with pytest.raises(InputError, match="/data is the place of a as well"):
        made(project, {"a": home, "b": home}, "a,b", image="i:1")
    with pytest.raises(InputError, match="/data is the target of a mount too"):
        made(project, {"a": home}, "a", image="i:1", mounts=("/x:/data",))


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ({"MAD_MINIO": "canary"}, "MAD_MINIO: expected an object"),
        ({"MAD_MINIO": {"USERNAM": "canary"}}, "USERNAM: it is not a known key; did you mean 'USERNAME'"),
        ({"MAD_MINIO": {"USERNAME": "canary", "MINIO_ENDPOINT": "h"}}, "belong together"),
        ({"MAD_MINIO": {"MINIO_ENDPOINT": "ftp://canary"}}, "no address such as"),
        ({"MAD_MINIO": {"MINIO_ENDPOINT": "http://u:canary@h"}}, "no address such as"),
        ({"MAD_MINIO": {"PASSWORD": ["canary"]}}, "PASSWORD: expected text"),
        ({"NAS_NODES": {}, "MAD_AWS_S3": []}, "MAD_AWS_S3: expected an object"),
        ({"NAS_NODES": "canary"}, "NAS_NODES: expected a list"),
        (
            {"NAS_NODES": [{"HOST": "-oProxyCommand=canary"}]},
            r"NAS_NODES\[0\].HOST: it is missing",
        ),
        ({"NAS_NODES": [{"HOST": "h", "PORT": "canary"}]}, "PORT: it is no port"),
        ({"NAS_NODES": [{"HOST": "h", "USERNAME": "-l canary"}]}, "USERNAME: it is no name of a user"),
        ({"NAS_NODES": [{"HOST": "h", "PASSWORD": "canary\n"}]}, "PASSWORD: it holds control characters"),
    ],
)
def test_credentials_that_cannot_be_used_are_named_without_their_values(entries: Any, words: str) -> None:
    if entries.get("MAD_AWS_S3") == []:
        entries = {"MAD_AWS_S3": ["canary"]}
    with pytest.raises(InputError, match=words) as refused:
        access_of(entries, {})
    assert "canary" not in str(refused.value)


@pytest.mark.parametrize("port", [22, "22", None])
def test_a_port_is_a_number_or_a_text(port: Any) -> None:
    entry = {"HOST": "h"} | ({"PORT": port} if port is not None else {})
    assert access_of({"NAS_NODES": [entry]}, {})["nas"].values["hosts"][0]["port"] == 22
