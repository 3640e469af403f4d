"""How rows come: what card, context and options say of it, with the origin of each rule."""

from __future__ import annotations

import json
from typing import Any

import pytest
from phalanx.controller.plan.describe import describe
from phalanx.controller.plan.make import plan_for_command, plan_for_tags
from phalanx.controller.plan.model import ResultRule
from phalanx.controller.plan.result_rule import config_in
from phalanx.controller.workflow.errors import InputError

from .making import command, models


def test_models_are_scanned_with_the_usual_patterns_unless_said_otherwise() -> None:
    plan = plan_for_tags(models())
    assert plan.cases[0].result == ResultRule(scan=True, scripts="/proj/scripts/m", project="/proj")
    assert plan.origins["cases.m0.result.scan"] == plan.origins["cases.m0.result.patterns"] == "default"
    assert plan_for_command(command()).cases[0].result == ResultRule(require_performance=False)


def test_the_context_goes_over_the_card_and_harmless_texts_add_up() -> None:
    card = {"log_error_patterns": ["a"], "log_error_benign_patterns": ["b"], "log_error_pattern_scan": "no"}
    said = {
        "log_error_patterns": ["c"],
        "log_error_benign_patterns": ["d", "b"],
        "log_error_pattern_scan": True,
    }
    rule = plan_for_tags(models(card)).cases[0].result
    assert (rule.patterns, rule.benign, rule.scan) == (("a",), ("b",), False)
    plan = plan_for_tags(models(card, context=json.dumps(said)))
    rule = plan.cases[0].result
    assert (rule.patterns, rule.benign, rule.scan) == (("c",), ("b", "d"), True)
    assert plan.origins["cases.m0.result.patterns"] == "--additional-context: log_error_patterns"
    assert plan_for_tags(models(card)).origins["cases.m0.result.scan"] == (
        "models.json: [0] (m0): log_error_pattern_scan"
    )


@pytest.mark.parametrize(
    ("key", "value", "place"),
    [
        ("log_error_patterns", [], "log_error_patterns: "),
        ("log_error_patterns", "x", "log_error_patterns: "),
        ("log_error_patterns", ["x", ""], "log_error_patterns[1]: "),
        ("log_error_patterns", ["a\nb"], "log_error_patterns[0]: "),
        ("log_error_patterns", [1], "log_error_patterns[0]: "),
        ("log_error_benign_patterns", [""], "log_error_benign_patterns[0]: "),
        ("log_error_benign_patterns", {"a": 1}, "log_error_benign_patterns: "),
        ("log_error_pattern_scan", "maybe", "log_error_pattern_scan: expected true or false"),
        ("log_error_pattern_scan", ["no"], "log_error_pattern_scan: expected true or false"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_place_in_card_and_context(
    key: str, value: Any, place: str
) -> None:
    with pytest.raises(InputError) as of_context:
        models(context=json.dumps({key: value}))
    assert str(of_context.value).startswith(f"cannot read --additional-context: {place}")
    with pytest.raises(InputError) as of_card:
        models({key: value})
    assert str(of_card.value).startswith(f"cannot read models.json: [0]: {place}")


def test_the_dry_run_shows_the_rules_and_what_is_written() -> None:
    card = {"log_error_patterns": ["NaN loss"], "log_error_benign_patterns": ["known"]}
    text = describe(plan_for_tags(models(card, performance="last")))
    assert "a row with the last 'performance: VALUE METRIC' of the logs   (--performance)" in text
    assert "a failure when a line of the logs has 'NaN loss'" in text
    assert "but not for lines with known" in text
    assert "/proj/perf_super.json" in text
    off = describe(plan_for_tags(models({"log_error_pattern_scan": False})))
    assert "logs are not looked through for errors   (models.json: [0] (m0): log_error_pattern_scan)" in off
    assert "perf_super" not in describe(plan_for_command(command()))


def test_only_first_and_last_are_known() -> None:
    with pytest.raises(InputError, match="--performance best: expected first or last"):
        plan_for_tags(models(performance="best"))


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("", ""),
        ("--config a.yaml", "a.yaml"),
        ("--config=a.yaml", "a.yaml"),
        ("--config a --config=b", "b"),
        ("--config", ""),
        ("--configs a", ""),
    ],
)
def test_a_command_names_its_configuration(words: str, expected: str) -> None:
    assert config_in(words.split()) == expected
