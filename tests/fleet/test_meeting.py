"""Every node of a case gets its own rank and the one meeting point, in the launcher's command as well."""

from __future__ import annotations

import dataclasses

from phalanx.controller.fleet.meeting import Meeting
from phalanx.controller.plan.make import plan_for_tags
from phalanx.controller.plan.model import CasePlan, EnvValue, Plan, StepPlan
from phalanx.protocol import messages as m

from tests.plan.making import models

from .world import World, make_plan

RUNNER = "MAD_MULTI_NODE_RUNNER"


def with_env(plan: Plan, env: dict[str, EnvValue], **fields: object) -> Plan:
    [case] = plan.cases
    return dataclasses.replace(plan, cases=(dataclasses.replace(case, env=env, **fields),))  # type: ignore[arg-type]


def started(plan: Plan) -> dict[str, dict[str, str]]:
    """The environment that each node's step was started with."""
    world = World(plan)
    world.run()
    return {node: message.env for node, message in world.told_to(m.StepStart)}


def launched(launcher: str, nodes: int, **more: object) -> CasePlan:
    card = {"n_gpus": "8", "distributed": {"launcher": launcher}}
    return plan_for_tags(models(card, nodes=nodes, **more)).cases[0]


def test_two_nodes_get_one_command_each_with_their_own_rank() -> None:
    envs = started(with_env(make_plan(2), launched("torchrun", 2).env))
    assert [envs[node][RUNNER] for node in ("n0", "n1")] == [
        f"torchrun --nnodes=2 --nproc_per_node=8 --node_rank={rank} "
        "--master_addr=10.0.0.1 --master_port=29500"
        for rank in (0, 1)
    ]
    assert [envs[node]["MAD_COLLECT_METRICS"] for node in ("n0", "n1")] == ["true", "false"]
    assert [envs[node]["MAD_NODE_RANK"] for node in ("n0", "n1")] == ["0", "1"]


def test_disaggregated_servers_know_each_others_addresses() -> None:
    envs = started(with_env(make_plan(4), launched("sglang-disagg", 4).env))
    assert {env["SGLANG_NODE_IPS"] for env in envs.values()} == {"10.0.0.1,10.0.0.2,10.0.0.3,10.0.0.4"}
    assert [envs[f"n{rank}"]["SGLANG_NODE_RANK"] for rank in range(4)] == ["0", "1", "2", "3"]


def test_a_port_of_the_plan_is_in_the_command_and_beside_it() -> None:
    world = World(with_env(make_plan(2), launched("torchrun", 2).env, master_port=4321))
    world.run()
    assert {message.env["MASTER_PORT"] for _, message in world.told_to(m.CaseOpen)} == {"4321"}
    assert all("--master_port=4321" in message.env[RUNNER] for _, message in world.told_to(m.StepStart))


def test_the_users_meeting_point_goes_into_the_command_too() -> None:
    made = launched("torchrun", 2, env=("MASTER_ADDR=ib-host", "MASTER_PORT=99"))
    envs = started(with_env(make_plan(2), made.env, master_port=99))
    assert envs["n1"]["MASTER_ADDR"] == "ib-host"
    assert envs["n1"][RUNNER].endswith("--node_rank=1 --master_addr=ib-host --master_port=99")


def test_braces_of_users_and_secrets_are_left_alone() -> None:
    env = {"A": EnvValue("{NODE_RANK} ${X}", "-e"), "S": EnvValue("", "env:S", secret=True)}
    case = dataclasses.replace(launched("torchrun", 2), env=env)
    assert Meeting(("a", "b"), 1).rendered(case.env, 1) == {"A": "{NODE_RANK} ${X}"}


def test_with_fewer_nodes_the_command_is_for_those_that_came() -> None:
    made = launched("torchrun", 3, min_nodes=2)
    assert "--nnodes=2" in Meeting(("a", "b"), 1).rendered(made.env, 0)[RUNNER]


def test_a_step_of_the_first_node_runs_there_alone() -> None:
    world = World(make_plan(3, steps=(StepPlan("main", ("x",), "first"),)))
    assert world.run().state == "succeeded"
    assert [node for node, _ in world.told_to(m.StepStart)] == ["n0"]
