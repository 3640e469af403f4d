"""Events in, the state of a run out: the one place where what happened becomes what is known.

Pure and incremental: ``fold`` of a whole log and ``advance`` of event after event give the same view.
Screens, ``ps``, ``status`` and the exit code are read from it; no lost stream or closed terminal ever enters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from phalanx.controller.fleet import events as ev
from phalanx.controller.fleet.image_identity import is_image
from phalanx.controller.logs.sources import EXEC_STEP
from phalanx.controller.runs.model import (
    CaseView,
    Failure,
    Fault,
    ImageView,
    Mark,
    NodeView,
    PhaseView,
    RankView,
    RunView,
    TransferView,
    failure_of,
)
from phalanx.protocol.messages import Cause

#: What spawner and agents said before joining: the last lines are enough to explain a failed start.
SAID_LIMIT = 200
NOTICE_LIMIT = 200

Handler = Callable[[RunView, float, Any], None]
_HANDLERS: dict[type[ev.Event], Handler] = {}
#: What the view of a run keeps of images that are asked for later.
_OF_ANOTHER: dict[type[ev.Event], Handler] = {}


def _on(kind: type[ev.Event]) -> Callable[[Handler], Handler]:
    def register(handler: Handler) -> Handler:
        _HANDLERS[kind] = handler
        return handler

    return register


def fold(events: Iterable[ev.Recorded], run_id: str = "") -> RunView:
    """The view after all of ``events``."""
    view = RunView(run_id=run_id)
    for recorded in events:
        advance(view, recorded)
    return view


def advance(view: RunView, recorded: ev.Recorded) -> None:
    """Take one more event into the view. One that was seen already changes nothing."""
    if recorded.seq <= view.seq:
        return
    view.seq, view.last_at = recorded.seq, recorded.at
    handler = _HANDLERS.get(type(recorded.event))
    of_another = getattr(recorded.event, "request", view.request) != view.request
    if of_another:
        handler = _OF_ANOTHER.get(type(recorded.event))
    if handler is not None:
        handler(view, recorded.at, recorded.event)


def _node(view: RunView, name: str) -> NodeView:
    return view.nodes.setdefault(name, NodeView(name))


def _fail(view: RunView, failure: Failure) -> None:
    """Keep the first. What fails after someone asked to stop is the stopping, not a failure."""
    if view.failure is None and not view.cancels:
        view.failure = failure


def _notice(view: RunView, at: float, text: str) -> None:
    view.notices.append((at, text))
    del view.notices[:-NOTICE_LIMIT]


# --- run -----------------------------------------------------------------------------------------------


@_on(ev.RunStarted)
def _run_started(view: RunView, at: float, event: ev.RunStarted) -> None:
    view.name, view.target, view.expected = event.name, event.target, event.nodes
    view.case_names, view.controller_pid = event.cases, event.controller_pid
    view.parallel = event.parallel
    if view.started_at is None:
        view.started_at = at


@_on(ev.RunEnding)
def _run_ending(view: RunView, at: float, event: ev.RunEnding) -> None:
    view.state, view.ending = "ending", event.reason


@_on(ev.RunFinished)
def _run_finished(view: RunView, at: float, event: ev.RunFinished) -> None:
    view.state, view.exit_code, view.reason = event.state, event.exit_code, event.reason
    view.leftovers, view.finished_at = event.leftovers, at
    mark = Mark.DONE if event.state == "succeeded" else Mark.FAILED
    for phase in view.phases.values():
        if phase.mark is Mark.ACTIVE:
            phase.end(at, mark)


@_on(ev.CancelRequested)
def _cancel(view: RunView, at: float, event: ev.CancelRequested) -> None:
    view.cancels.append((event.level, event.by))


# --- allocation, agents --------------------------------------------------------------------------------


@_on(ev.AllocationRequested)
def _allocation_requested(view: RunView, at: float, event: ev.AllocationRequested) -> None:
    view.state = "pending"
    view.phases["allocation"].begin(at)


@_on(ev.AllocationGranted)
def _allocation_granted(view: RunView, at: float, event: ev.AllocationGranted) -> None:
    view.state = "starting"
    view.job_id, view.owned = event.job_id, event.owned
    view.expected = len(event.nodes) or view.expected
    if event.job_id:
        view.phases["allocation"].end(at)
    for node_rank, name in enumerate(event.nodes):
        _node(view, name).node_rank = node_rank


@_on(ev.AllocationRefused)
def _allocation_refused(view: RunView, at: float, event: ev.AllocationRefused) -> None:
    view.phases["allocation"].end(at, Mark.FAILED)
    _fail(view, Failure(Fault.ALLOCATION, at, event.reason))


@_on(ev.AllocationEnded)
def _allocation_ended(view: RunView, at: float, event: ev.AllocationEnded) -> None:
    _notice(view, at, f"the scheduler ended the allocation: {event.state} {event.reason}".rstrip())
    words = f"the scheduler took the nodes away ({event.state})" + (event.reason and f": {event.reason}")
    if view.failure is not None and view.failure.fault is Fault.ALLOCATION:
        view.failure = replace(view.failure, detail=words)  # it knows more by now
    _fail(view, Failure(Fault.ALLOCATION, at, words))


@_on(ev.AllocationReleased)
def _allocation_released(view: RunView, at: float, event: ev.AllocationReleased) -> None:
    if event.error:
        _notice(view, at, f"allocation {event.job_id} could not be given back: {event.error}")


@_on(ev.SpawnStarted)
def _spawn_started(view: RunView, at: float, event: ev.SpawnStarted) -> None:
    view.phases["agents"].begin(at)


@_on(ev.SpawnSaid)
def _spawn_said(view: RunView, at: float, event: ev.SpawnSaid) -> None:
    view.spawner_said.append((event.node, event.text))
    del view.spawner_said[:-SAID_LIMIT]


@_on(ev.SpawnEnded)
def _spawn_ended(view: RunView, at: float, event: ev.SpawnEnded) -> None:
    if event.status and view.phases["agents"].mark is Mark.ACTIVE and event.text:
        _notice(view, at, f"the spawner ended with status {event.status}: {event.text}")


@_on(ev.AgentJoined)
def _agent_joined(view: RunView, at: float, event: ev.AgentJoined) -> None:
    view.phases["agents"].begin(at)
    node = _node(view, event.node)
    if node.joined_at is None:
        node.joined_at = at
    elif event.resumed:
        node.reconnects += 1
    node.state, node.node_rank, node.address, node.detail = "joined", event.node_rank, event.address, ""
    view.missing.pop(event.node, None)


@_on(ev.AgentFacts)
def _agent_facts(view: RunView, at: float, event: ev.AgentFacts) -> None:
    _node(view, event.node).facts = event.facts


@_on(ev.AgentSilent)
def _agent_silent(view: RunView, at: float, event: ev.AgentSilent) -> None:
    node = _node(view, event.node)
    node.state, node.detail = "silent", event.detail


@_on(ev.AgentLost)
def _agent_lost(view: RunView, at: float, event: ev.AgentLost) -> None:
    node = _node(view, event.node)
    node.state, node.detail = "lost", event.detail
    if view.state != "ending":
        _fail(view, Failure(Fault.NODE, at, event.detail, node=event.node))


@_on(ev.AgentDraining)
def _agent_draining(view: RunView, at: float, event: ev.AgentDraining) -> None:
    node = _node(view, event.node)
    node.state, node.detail = "draining", event.reason
    _notice(view, at, f"{event.node} is being taken away: {event.reason}")


@_on(ev.AgentNotice)
def _agent_notice(view: RunView, at: float, event: ev.AgentNotice) -> None:
    _notice(view, at, f"{event.node}: {event.text}")


@_on(ev.AgentLeft)
def _agent_left(view: RunView, at: float, event: ev.AgentLeft) -> None:
    node = _node(view, event.node)
    node.state, node.leftovers = "left", event.leftovers


@_on(ev.PeerRefused)
def _peer_refused(view: RunView, at: float, event: ev.PeerRefused) -> None:
    view.refused_peers += event.count


@_on(ev.JoinTimeout)
def _join_timeout(view: RunView, at: float, event: ev.JoinTimeout) -> None:
    view.missing = dict(event.missing)
    for name, reason in event.missing.items():
        node = _node(view, name)
        node.state, node.detail = "missing", reason


@_on(ev.FleetJoined)
def _fleet_joined(view: RunView, at: float, event: ev.FleetJoined) -> None:
    view.phases["agents"].end(at)
    view.state = "running"


# --- image ---------------------------------------------------------------------------------------------


@_on(ev.ImageOnNode)
def _image_status(view: RunView, at: float, event: ev.ImageOnNode) -> None:
    view.phases["image"].begin(at)
    node = _node(view, event.node)
    node.image, node.image_error = event, node.image_error or event.error
    view.image.reference = event.reference
    if event.error:
        _fail(view, Failure(Fault.IMAGE, at, event.error, node=event.node))
    elif event.image_id:
        (view.image.ready if view.image.source else view.image.had).add(event.node)


@_on(ev.ImageSource)
def _image_source(view: RunView, at: float, event: ev.ImageSource) -> None:
    view.phases["image"].begin(at)
    view.image.source, view.image.reference, view.image.id = event.where, event.reference, event.image_id
    view.image.size = event.size
    # Of those that had one under this name, only they have this one.
    view.image.had = {
        name for name in view.image.had if (held := view.nodes[name].image) and is_image(held, event)
    }
    if event.error:
        _fail(view, Failure(Fault.IMAGE, at, event.error))


@_on(ev.BlobFetched)
def _blob_fetched(view: RunView, at: float, event: ev.BlobFetched) -> None:
    if event.error:
        words = f"{event.purpose}: {event.error}"
        _fail(view, Failure(Fault.IMAGE, at, words, node=event.node, case=event.case))


@_on(ev.LayersOnNode)
def _image_layers(view: RunView, at: float, event: ev.LayersOnNode) -> None:
    if event.present:
        view.image.had.add(event.node)


@_on(ev.ImagePlanned)
def _image_planned(view: RunView, at: float, event: ev.ImagePlanned) -> None:
    view.image.transfer = TransferView(
        event.shape, event.nodes, event.bytes, event.source_bytes, event.saved_bytes, event.predicted_s
    )


@_on(ev.SlowNodes)
def _slow_nodes(view: RunView, at: float, event: ev.SlowNodes) -> None:
    if view.image.transfer is not None:
        view.image.transfer.slow = event.nodes


@_on(ev.ParentLeft)
def _parent_left(view: RunView, at: float, event: ev.ParentLeft) -> None:
    if view.image.transfer is not None:
        view.image.transfer.parents_left += 1
    if event.corrupt:
        _notice(view, at, f"{event.parent} sent damaged bytes to {event.node}: {event.reason}")


@_on(ev.ImageReady)
def _image_ready(view: RunView, at: float, event: ev.ImageReady) -> None:
    view.phases["image"].end(at)
    view.image.reference, view.image.id = event.reference, event.image_id
    if (transfer := view.image.transfer) is not None:
        transfer.sent_bytes, transfer.read_bytes = event.sent_bytes, event.read_bytes
        transfer.seconds, transfer.ready_s = event.transfer_s, event.seconds
        transfer.slowest = event.slowest


@_on(ev.ImageRequested)
def _image_requested(view: RunView, at: float, event: ev.ImageRequested) -> None:
    view.phases["image"].begin(at)
    view.started_at, view.expected, view.image.reference = at, len(event.nodes), event.reference


@_on(ev.ImageFailed)
def _image_failed(view: RunView, at: float, event: ev.ImageFailed) -> None:
    view.phases["image"].end(at, Mark.FAILED)
    view.image.error = event.reason
    if not view.image.case:
        view.reason, view.exit_code = event.reason, event.exit_code
    elif view.state != "ending":
        _fail(view, Failure(Fault.IMAGE, at, f"{event.reference}: {event.reason}", case=view.image.case))


def _another_asked_for(view: RunView, at: float, event: ev.ImageRequested) -> None:
    """A case that is due needs the next of the run's own images; what a person wants is none of them."""
    if event.case:
        view.request = event.request
        view.earlier_images = view.images
        view.image = ImageView(event.reference, case=event.case)
        view.phases["image"] = PhaseView()
        view.phases["image"].begin(at)


def _another_came(view: RunView, at: float, event: ev.ImageReady) -> None:
    _notice(view, at, f"image {event.reference} was brought to {event.nodes} nodes")


def _another_failed(view: RunView, at: float, event: ev.ImageFailed) -> None:
    _notice(view, at, f"image {event.reference} could not be brought: {event.reason}")


_OF_ANOTHER[ev.ImageRequested] = _another_asked_for
_OF_ANOTHER[ev.ImageReady] = _another_came
_OF_ANOTHER[ev.ImageFailed] = _another_failed


# --- cases and steps -----------------------------------------------------------------------------------


@_on(ev.RuntimeOnNode)
def _runtime_opened(view: RunView, at: float, event: ev.RuntimeOnNode) -> None:
    if event.error:
        _fail(view, Failure(Fault.CASE, at, event.error, node=event.node))


@_on(ev.CaseStarted)
def _case_started(view: RunView, at: float, event: ev.CaseStarted) -> None:
    view.state = "running"
    view.phases["run"].begin(at)
    view.cases[event.case] = CaseView(event.case, event.nodes, event.ranks, event.gpus, began=at)


@_on(ev.CaseOpenedOn)
def _case_opened(view: RunView, at: float, event: ev.CaseOpenedOn) -> None:
    if event.error:
        _fail(view, Failure(Fault.CASE, at, event.error, node=event.node, case=event.case))


@_on(ev.StepBegun)
def _step_begun(view: RunView, at: float, event: ev.StepBegun) -> None:
    if not event.step.startswith(EXEC_STEP):
        _case(view, event.case).step = event.step


@_on(ev.RankStarted)
def _rank_started(view: RunView, at: float, event: ev.RankStarted) -> None:
    _rank(view, event.case, event.step, event.node, event.rank).began = at


@_on(ev.RankExited)
def _rank_exited(view: RunView, at: float, event: ev.RankExited) -> None:
    rank = _rank(view, event.case, event.step, event.node, event.rank)
    rank.ended, rank.status, rank.seconds, rank.detail = at, event.status, event.seconds, event.detail
    rank.cause = cause_of(event.cause)
    if not rank.failed or rank.cause is Cause.STOPPED or event.step.startswith(EXEC_STEP):
        return
    first = view.failure
    if (
        rank.cause is Cause.LOST
        and first is not None
        and first.fault is Fault.NODE
        and first.node == event.node
    ):
        view.failure = None  # the same misfortune; by rank it says more
    _fail(view, failure_of(rank, _case(view, event.case).local(event.rank)))


@_on(ev.RankReady)
def _rank_ready(view: RunView, at: float, event: ev.RankReady) -> None:
    for rank in view.ranks.values():
        if rank.case == event.case and rank.rank == event.rank and rank.cause is None:
            rank.ready = True


@_on(ev.RankMetric)
def _rank_metric(view: RunView, at: float, event: ev.RankMetric) -> None:
    view.metrics[event.name] = (event.rank, event.value, event.unit)


@_on(ev.BarrierFailed)
def _barrier_failed(view: RunView, at: float, event: ev.BarrierFailed) -> None:
    whose = f" of case {event.case}" if view.parallel > 1 else ""
    _notice(view, at, f"barrier {event.name}{whose} cannot open: {event.reason}")


@_on(ev.FileCollected)
def _file_collected(view: RunView, at: float, event: ev.FileCollected) -> None:
    view.phases["results"].begin(at)
    if event.error:
        _notice(view, at, f"{event.node}: {event.path} could not be collected: {event.error}")
        return
    view.files += 1
    view.file_bytes += event.size


@_on(ev.CaseCollectedOn)
def _case_collected(view: RunView, at: float, event: ev.CaseCollectedOn) -> None:
    view.phases["results"].begin(at)
    case = _case(view, event.case)
    case.files += event.files
    case.left_out += tuple(f"{event.node}: {words}" for words in event.left_out)


@_on(ev.CaseClosedOn)
def _case_closed(view: RunView, at: float, event: ev.CaseClosedOn) -> None:
    if event.error:
        _notice(view, at, f"{event.node}: case {event.case} could not be cleaned up: {event.error}")


@_on(ev.CaseFinished)
def _case_finished(view: RunView, at: float, event: ev.CaseFinished) -> None:
    case = _case(view, event.case)
    case.status, case.reason, case.rows, case.error, case.ended = (
        event.status,
        event.reason,
        event.rows,
        event.error,
        at,
    )
    case.notes = event.notes
    if event.status == "FAILURE":
        _fail(view, Failure(Fault.CASE, at, event.reason, case=event.case))
    if event.error:
        _notice(view, at, f"rows of case {event.case} could not be written: {event.error}")
    if all(name in view.cases and view.cases[name].status for name in view.case_names):
        failed = any(case.status not in ("SUCCESS", "SKIPPED") for case in view.cases.values())
        view.phases["run"].end(at, Mark.FAILED if failed else Mark.DONE)
        if view.rows or view.phases["results"].mark is not Mark.WAITING:
            view.phases["results"].end(at)


@_on(ev.LogEnded)
def _log_ended(view: RunView, at: float, event: ev.LogEnded) -> None:
    if event.missing:
        view.log_gaps[event.path] = event.missing


def _case(view: RunView, name: str) -> CaseView:
    return view.cases.setdefault(name, CaseView(name))


def _rank(view: RunView, case: str, step: str, node: str, rank: int) -> RankView:
    return view.ranks.setdefault((case, step, node, rank), RankView(case, step, node, rank))


def cause_of(word: str) -> Cause:
    """The cause that a log names. A word from a newer version: ended by itself, the status tells the rest."""
    try:
        return Cause(word)
    except ValueError:
        return Cause.EXITED
