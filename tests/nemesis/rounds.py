"""One round: a run begins, something of it is killed, and what must hold afterwards is looked at."""

from __future__ import annotations

import random
import statistics
import threading
import time
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace

from tests.nemesis.scenes import JOIN_S, LEASE_S, WORKLOAD, OnCluster, Scene, engine_is_down, strike_now
from tests.nemesis.strikes import Strike
from tests.stories.cluster import until
from tests.stories.program import Phalanx, Run

#: Beyond the lease: supervisors look each second and give their processes one more.
AFTER_LEASE_S = 3.0
#: What is left of a run may take this long to say how it went, after nothing of it runs.
LAST_WORDS_S = 15.0
#: From the end of a container's last process, or the start of an engine, until the engine says so.
ENGINE_S = 2.0
#: The end of a job that agents give back, once their lease is over.
GIVEN_BACK_S = 5.0
#: A janitor works beside the start of the run that brought it.
SWEEP_S = 5.0


@dataclass(slots=True)
class Outcome:
    """How a round went. ``gone_s``: from the strike until nothing worked on any node.

    ``taken``: what nobody gave back to the scheduler after the controller was killed, but the test.
    """

    strike: Strike
    gone_s: float
    exit_code: int | None
    taken: list[str]

    def words(self) -> str:
        """One line of the report."""
        said = "-" if self.exit_code is None else str(self.exit_code)
        more = f"; to be given back by hand: {', '.join(self.taken)}" if self.taken else ""
        return f"gone after {self.gone_s:.2f} s, exit {said}{more} ({self.strike.words()})"


@dataclass(slots=True)
class Report:
    """All rounds."""

    outcomes: list[Outcome] = field(default_factory=list)

    def words(self) -> str:
        """The figures of all rounds, for people."""
        gone = sorted(one.gone_s for one in self.outcomes) or [0.0]
        taken = [one for one in self.outcomes if one.taken]
        spared = sum(one.strike.spares_an_agent for one in taken)
        return (
            f"{len(self.outcomes)} rounds without a leak, {len(taken)} whose nodes were given back by hand, "
            f"{spared} of these although an agent lived to do it; "
            f"gone after p50 {statistics.median(gone):.2f} s, at most {gone[-1]:.2f} s (lease {LEASE_S} s)"
        )


def play(scene: Scene, phalanx: Phalanx, strike: Strike) -> Outcome:
    """Play a round. Raises AssertionError with the strike and all that is recorded of the run."""
    scene.age()
    run = scene.start(phalanx, *WORKLOAD)
    try:
        return _play(scene, phalanx, run, strike)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{strike.words()}\n{run.story()}") from error


def _play(scene: Scene, phalanx: Phalanx, run: Run, strike: Strike) -> Outcome:
    if strike.early:
        until((run.folder / "control.json").exists, 20.0, "the controller runs")
    else:
        run.wait_event("step.started", count=len(scene.nodes))
        until(lambda: not scene.strange(run), SWEEP_S, f"swept by the janitors: {scene.strange(run)}")
    threading.Event().wait(strike.after_s)  # the moment of the strike is what is varied here
    pids = scene.victims(run, strike)
    if strike.early and not pids:  # none of them was there yet
        strike = replace(strike, controller=True)
        pids = scene.victims(run, strike)
    random.Random(strike.seed).shuffle(pids)
    assert pids, "nothing was there to be killed"
    struck = time.monotonic()
    strike_now(pids)
    repair = threading.Thread(target=_repair, args=(scene, strike))
    repair.start()
    try:
        since = _ends_by_itself(scene, phalanx, run, strike, struck, repair)
        gone = _gone(scene, since, strike.early)
    finally:
        repair.join()
    assert not scene.alive(), f"still there {gone:.1f} s after the strike: {scene.alive()}"
    # an engine takes a moment to notice that a container is over, one that was killed more
    until(lambda: not scene.running(), ENGINE_S, f"no engine calls it running: {scene.running()}")
    # what ended before its time was left to janitors, who wait for the lease
    until(lambda: time.monotonic() > since + LEASE_S, LEASE_S + 1.0, "its lease is over")
    code = None if strike.client else run.wait(LAST_WORDS_S)
    _no_success(run, strike, code)
    if not strike.controller:
        run.wait_event("run.finished", within=LAST_WORDS_S)
        assert not scene.taken(), f"not given back: {scene.taken()}"
        return Outcome(strike, gone, code, [])
    if strike.client:
        _no_status_claims_success(phalanx, run)
    if strike.spares_an_agent:
        # reported, not failed, for an early strike: an agent that never joined cannot know
        with suppress(AssertionError) if strike.early else nullcontext():
            until(lambda: not scene.taken(), GIVEN_BACK_S, "its agents give the nodes back")
    return Outcome(strike, gone, code, scene.give_back())


def _repair(scene: Scene, strike: Strike) -> None:
    if isinstance(scene, OnCluster) and strike.engine:
        engine_is_down(scene.cluster, strike.engine, strike.containerd)
        threading.Event().wait(strike.restart_s)
        scene.repair(strike)


def _ends_by_itself(
    scene: Scene, phalanx: Phalanx, run: Run, strike: Strike, struck: float, repair: threading.Thread
) -> float:
    """From when on time is taken: a run that can go on does so until its engine is back or it is asked."""
    if strike.controller or (strike.ends_the_run and not strike.early):
        return struck
    repair.join()
    if not strike.engine and not strike.early:
        assert len(scene.alive()) >= 2 * len(scene.nodes), f"it ended for no reason: {scene.alive()}"
    if not run.events("run.finished"):
        phalanx.ask("cancel", run.id)  # it may be over by now
    return time.monotonic()


def _gone(scene: Scene, since: float, early: bool) -> float:
    """Seconds until nothing works any more; the last look is not the judge.

    What had not begun when it was struck may still come up, so an early strike is watched for the whole time.
    """
    seen = since
    while time.monotonic() < since + (JOIN_S if early else LEASE_S) + AFTER_LEASE_S:
        if scene.alive():
            seen = time.monotonic()
        elif not early:
            break
        time.sleep(0.05)
    return seen - since


def _no_success(run: Run, strike: Strike, code: int | None) -> None:
    assert code != 0, "its client says 0"
    for word in (" ok ", "SUCCESS"):
        assert word not in run.everything, f"its client says {word!r}"
    for event in run.events("run.finished"):
        assert event["exit_code"] != 0, event
        assert event["state"] != "succeeded", event
    assert not run.events("case.finished", status="SUCCESS")
    assert not run.events("step.exited", status=0)


def _no_status_claims_success(phalanx: Phalanx, run: Run) -> None:
    told = phalanx.ask("status", run.id)
    for word in ("succeeded", "SUCCESS", " ok "):
        assert word not in told.stdout, told.stdout
