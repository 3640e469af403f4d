"""Plans of the image verbs: what is refused before a node is asked for, and what a dry run says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.inputs import RunInputs
from phalanx.controller.plan.make import plan_for_command, plan_for_image, plan_for_inventory, plan_for_tags
from phalanx.controller.plan.model import ImagePlan, Plan, Travel
from phalanx.controller.workflow.errors import InputError
from phalanx.controller.workflow.models import ModelImage

from .making import inputs, models


def test_the_image_of_a_manifest_is_the_one_that_was_built_unless_the_name_is_said() -> None:
    (model,) = models({}).models
    built = replace(model, image=ModelImage("ci-a", "m.json: built_images.ci-a", "sha256:1"))
    given = replace(models({}), models=(built,))
    assert plan_for_tags(given).images == (ImagePlan("ci-a", image_id="sha256:1"),)
    assert plan_for_tags(replace(given, image="ci-a")).images == (ImagePlan("ci-a"),)
    plan = plan_for_tags(given)
    assert plan.image_of_cases("ci-a").image_id == "sha256:1"


def listing(given: RunInputs) -> Plan:
    return plan_for_inventory(given, prune=False)


def test_how_images_travel_holds_for_runs_that_have_none_yet() -> None:
    plan = plan_for_command(inputs(command=("x",), bulk_rate="2m", bulk_security="integrity"))
    assert (plan.images, plan.travel) == ((), Travel("integrity", 2 * 2**20))
    with pytest.raises(InputError, match="bulk-rate"):
        plan_for_command(inputs(command=("x",), bulk_rate="fast"))


@pytest.mark.parametrize("make", [plan_for_image, listing])
@pytest.mark.parametrize("name", ["-x", "../x", "a b", "a\n", "a:" + "1" * 600])
def test_what_no_engine_takes_as_a_name_is_refused(make: Callable[[RunInputs], Plan], name: str) -> None:
    with pytest.raises(InputError, match=r"cannot use IMAGE: .* is no image name"):
        make(inputs(image=name))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "none is named"),
        ({"image": "a:1", "bulk_security": "integrty"}, "did you mean 'integrity'"),
        ({"image": "a:1", "bulk_rate": "fast"}, "--bulk-rate"),
    ],
)
def test_a_sync_that_cannot_be_is_refused(given: dict[str, str], said: str) -> None:
    with pytest.raises(InputError, match=said):
        plan_for_image(inputs(**given))


def test_unencrypted_layers_are_announced() -> None:
    plan = plan_for_image(inputs(image="a:1", bulk_security="integrity"))
    assert plan.travel.security == "integrity"
    assert "unencrypted" in plan.warnings[0]


def test_a_dry_run_of_a_prune_says_what_would_be_removed() -> None:
    told = describe(plan_for_inventory(inputs(image="a:1"), prune=True))
    assert "every node's cached layers with which no process works are removed" in told
    assert "a:1 is removed from every engine" in told
    assert "removed" not in describe(listing(inputs(image="a:1")))
