"""What holds for every test: the Hypothesis profiles and the tiers."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.tiers import TIERS, Tally, tier_of

_SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "default", max_examples=100, deadline=None, print_blob=True, suppress_health_check=_SLOW
)
settings.register_profile("ci", settings.get_profile("default"), max_examples=200, stateful_step_count=50)
settings.register_profile(
    "unshrunk", settings.get_profile("default"), phases=[Phase.explicit, Phase.generate]
)
settings.register_profile("nightly", settings.get_profile("ci"), max_examples=20_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "default"))

_TALLY = pytest.StashKey[Tally]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TALLY] = Tally()
    for tier in TIERS[1:]:
        config.addinivalue_line("markers", f"{tier.name}: {tier.proves}")


@pytest.fixture(scope="session", autouse=True)
def _no_history_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Runs of tests are no runs of who runs the tests."""
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    os.environ.pop("PHALANX_HISTORY", None)


def _name_of_tier(item: pytest.Item) -> str:
    return tier_of({marker.name for marker in item.iter_markers()}).name


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Cheap tiers first: a broken decision should not wait for a cluster to be built."""
    order = {tier.name: place for place, tier in enumerate(TIERS)}
    items.sort(key=lambda item: order[_name_of_tier(item)])
    unasked = {tier.name for tier in TIERS if tier.left_out(config.option.markexpr)}
    left_out = [item for item in items if _name_of_tier(item) in unasked]
    items[:] = [item for item in items if _name_of_tier(item) not in unasked]
    config.hook.pytest_deselected(items=left_out)
    config.stash[_TALLY].left_out.update(map(_name_of_tier, left_out))
    config.stash[_TALLY].collected.update(map(_name_of_tier, items))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    tally, tier = item.config.stash[_TALLY], _name_of_tier(item)
    tally.seconds[tier] += report.duration
    if hasattr(report, "wasxfail"):
        outcome = "failed" if report.outcome == "failed" else "passed"
    else:
        outcome = report.outcome
    if call.when == "call" or outcome in ("skipped", "failed"):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        tally.add(tier, item.nodeid, outcome, why)
    return report


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A tier that could run and did not turns a green session red."""
    tally = session.config.stash[_TALLY]
    whole = exitstatus == pytest.ExitCode.OK and not session.config.option.collectonly
    if whole and (tally.wrongly_skipped() or tally.never_ran()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    tally = config.stash[_TALLY]
    terminalreporter.section("tiers")
    for line in tally.table():
        terminalreporter.line(line)
    for test in tally.wrongly_skipped():
        terminalreporter.line(f"SKIPPED although everything it needs is here: {test}", red=True)
    for tier in tally.never_ran():
        terminalreporter.line(f"tier {tier} can run here and did not", red=True)
