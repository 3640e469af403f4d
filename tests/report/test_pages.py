"""Pages as files: what is in them, what is not, and what nothing from outside can put there."""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from phalanx.controller.fleet import events as ev
from phalanx.controller.logs.clean import spelled
from phalanx.controller.plan.codec import to_json
from phalanx.controller.plan.make import plan_for_command
from phalanx.controller.plan.model import EnvValue, Plan
from phalanx.controller.report.csv_page import csv_page
from phalanx.controller.report.mail import MOST_ROWS, mail_page, read_folder
from phalanx.controller.report.run_page import ReportError, run_page
from phalanx.controller.report.sides import compared, page, read_sides
from phalanx.controller.results.summary import Summary, of_records, read_summary
from phalanx.controller.runs.history_note import leave_note

from tests.plan.making import command
from tests.runs.stories import START, STORIES, recorded, running, started

from .making import EVIL, cluster_run, log, nightly, row, table, with_logs, with_table, write_run
from .reading import Seen, seen

#: Everything that a page is made of; whatever else a parser finds came from outside.
OURS = frozenset(
    [
        *("html", "head", "meta", "title", "style", "script", "body", "header", "main", "footer", "section"),
        *(
            "h1",
            "h2",
            "h3",
            "p",
            "dl",
            "div",
            "dt",
            "dd",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "span",
        ),
        *(
            "form",
            "input",
            "button",
            "b",
            "output",
            "details",
            "summary",
            "figure",
            "figcaption",
            "pre",
            "ul",
        ),
        *("li", "time", "svg", "defs", "pattern", "g", "rect", "line", "text", "polyline", "path", "circle"),
    ]
)


def evil_table(folder: Path) -> Path:
    return table(
        folder / "evil.csv", [row(evil, evil, evil, args=evil, status=evil, **{evil: evil}) for evil in EVIL]
    )


def evil_run(folder: Path) -> bytes:
    """A run whose every word is somebody else's."""
    evil = "".join(EVIL)
    events: list[ev.Event] = [
        ev.RunStarted(evil, evil, 1, (evil, "b")),
        ev.AllocationGranted(evil, (evil,), False),
        ev.SpawnStarted(("x",)),
        ev.AgentJoined(evil, 0, "i", evil),
        ev.AgentFacts(
            evil, {"arch": evil, "kernel": evil, "engine": {"kind": evil}, "gpus": [{"model": evil}]}
        ),
        ev.ImageOnNode(evil, evil, evil),
        ev.AgentNotice(evil, evil),
        ev.CaseStarted(evil, (evil,), 1),
        ev.RankStarted(evil, evil, evil, 0),
        ev.RankExited(evil, evil, evil, 0, 1, "exited", 1.0, evil),
        ev.CaseFinished(evil, "FAILURE", evil, (row(evil, evil, evil),), evil),
        ev.CaseFinished("b", evil, evil, ()),
        ev.RunFinished("failed", 3, evil, (evil,)),
    ]
    run = write_run(folder, recorded(events))
    run.identity.write_text(
        json.dumps({"argv": list(EVIL), "user": evil, "host": evil, "cwd": evil, "versions": {evil: evil}})
    )
    return run_page(run, START + 60)


def pages(folder: Path) -> dict[str, bytes]:
    """Every kind of page, of evil input."""
    path = evil_table(folder)
    sides = read_sides((str(path), str(path)), folder)
    found = read_folder(folder)
    return {
        "table": csv_page(EVIL[0], EVIL[1], read_summary(path)),
        "run": evil_run(folder / "runs"),
        "compare": page(sides, compared(sides)),
        "mail": mail_page(EVIL[0], found.tables, [(EVIL[1], EVIL[2])]),
    }


@pytest.mark.parametrize("kind", ["table", "run", "compare", "mail"])
def test_nothing_from_outside_becomes_an_element_or_an_attribute(tmp_path: Path, kind: str) -> None:
    found = seen(pages(tmp_path)[kind])
    for tag, attributes in found.tags:
        assert tag in OURS
        assert not [
            name
            for name in attributes
            if name.startswith("on") or name in ("href", "src", "srcdoc", "action")
        ]
    assert len(found.of("script")) == (0 if kind == "mail" else 1)


@pytest.mark.parametrize("kind", ["table", "run", "compare", "mail"])
def test_everything_from_outside_shows_as_text_and_nothing_hides_or_turns(tmp_path: Path, kind: str) -> None:
    content = pages(tmp_path)[kind]
    text = seen(content).text
    for evil in EVIL:
        assert " ".join(spelled(evil).split()) in text
    assert not [letter for letter in content.decode() if letter in "\x00\x1b\x07\u2028\u2029\u202e\u202c"]


def test_half_characters_do_not_stop_a_page() -> None:
    assert "a\\ud800b" in seen(csv_page("x", "y", Summary(("model",), (("a\ud800b",),)))).text


def policy_of(found: Seen) -> dict[str, str]:
    (meta,) = [one for one in found.of("meta") if one.get("http-equiv") == "Content-Security-Policy"]
    parts = (meta["content"] or "").split("; ")
    return dict(part.split(" ", 1) for part in parts)


def test_the_policy_allows_the_one_script_and_style_sheet_by_hash_and_nothing_else() -> None:
    found = seen(csv_page("perf.csv", "/x", of_records(nightly(20))))
    hashes = {
        name: base64.b64encode(hashlib.sha256("".join(found.inline[name]).encode()).digest()).decode()
        for name in ("script", "style")
    }
    assert policy_of(found) == {
        "default-src": "'none'",
        "script-src": f"'sha256-{hashes['script']}'",
        "style-src": f"'sha256-{hashes['style']}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not [attributes for _, attributes in found.tags if "style" in attributes]


def test_cells_that_a_spreadsheet_would_run_stay_as_they_are(tmp_path: Path) -> None:
    path = with_table(tmp_path / "perf.csv", [row("=1+1", "-5", "x", args="--batch 4", tags="@here")])
    text = seen(csv_page("perf.csv", "/x", read_summary(path))).text
    for cell in ("=1+1", "-5", "--batch 4", "@here"):
        assert cell in text
        assert f"'{cell}" not in text


def test_a_long_value_is_cut_and_whole_in_its_title() -> None:
    long = "x" * 3000
    found = seen(csv_page("perf.csv", "/x", of_records([row("a", "1", "x", args=long), row("b", "1", "x")])))
    assert long not in found.text
    assert long in [attributes.get("title") for attributes in found.of("span")]


def test_ten_thousand_rows_are_one_page_of_a_few_megabytes() -> None:
    content = csv_page("perf.csv", "/x", of_records(nightly(10_000)))
    assert content.count(b"<tr>") > 10_000
    assert len(content) < 8_000_000
    assert len(seen(content).of("tbody")) == 3  # the history; rows at first; the rest, which is not laid out


def test_a_table_without_history_or_rows_has_no_empty_section() -> None:
    text = seen(csv_page("perf.csv", "/x", of_records([row("a", "1", "x"), row("b", "2", "x")]))).text
    assert "History" not in text
    found = seen(csv_page("perf.csv", "/x", Summary(("model", "status"), ())))
    assert found.of("section") == []


def test_the_head_of_a_table_says_how_the_models_stand() -> None:
    text = seen(
        csv_page("perf.csv", "/x", of_records([row("a", "1", "x"), row("b", "2", "x"), row("b")]))
    ).text
    assert "models 1 of 2 failed last" in text
    text = seen(
        csv_page("perf.csv", "/x", of_records([row("b"), row("a", "1", "x"), row("b", "2", "x")]))
    ).text
    assert "models all 2 well" in text
    text = seen(
        csv_page("perf.csv", "/x", of_records([row("a", "1", "x", test_duration="90.5s", nnodes="2.0")]))
    ).text
    assert "time in tests 1 m 30 s nodes 2" in text
    endless = [row(name, "1", "x", test_duration="1e308") for name in "ab"]
    assert "time in tests" not in seen(csv_page("perf.csv", "/x", of_records(endless))).text


# --- runs ----------------------------------------------------------------------------------------------


def report(folder: Path, name: str) -> Seen:
    return seen(run_page(write_run(folder, recorded(STORIES[name])), START + 60))


@pytest.mark.parametrize("name", STORIES)
def test_every_run_has_a_page_without_an_empty_section(tmp_path: Path, name: str) -> None:
    content = run_page(write_run(tmp_path, recorded(STORIES[name])), START + 60).decode()
    for section in content.split("<section")[1:]:
        body = section.split("</h2>")[1].split("</section>")[0]
        assert seen(body.encode()).text or "<svg" in body, section[:200]


def test_a_failed_run_tells_the_first_failure_its_log_and_the_folded_echoes(tmp_path: Path) -> None:
    found = seen(run_page(with_logs(write_run(tmp_path, cluster_run())), START + 1000))
    assert "First failure: gpu005 rank 35 (local 3)" in found.text
    assert "torch.OutOfMemoryError: HIP out of memory" in found.text
    assert "last 80 of 95 lines" in found.text
    assert "94 ranks: stopped by phalanx · exit 143 (SIGTERM: Terminated) gpu[001-012] (12)" in found.text
    assert "models well 2 models failed 1" in found.text


def test_another_case_that_failed_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    events: list[ev.Event] = [ev.RunStarted("demo", "local", 1, ("a", "b"))]
    for case in "ab":
        events += [
            ev.CaseStarted(case, ("node1",), 1),
            ev.RankStarted(case, "main", "node1", 0),
            ev.RankExited(case, "main", "node1", 0, 7, "exited", 1.0),
            ev.CaseFinished(case, "FAILURE", f"why {case}", ()),
        ]
    run = write_run(tmp_path, recorded([*events, ev.RunFinished("failed", 3, "")]))
    log(run, "node1/a/rank0.err", "trouble of a\n")
    log(run, "node1/b/rank0.err", "trouble of b\n")
    text = seen(run_page(run, START + 60)).text
    assert text.index("First failure") < text.index("trouble of a") < text.index("More that did not end well")
    assert "why b" in text
    assert "trouble of b" in text.split("More that did not end well")[1]


def test_log_lines_are_bounded_and_without_escapes(tmp_path: Path) -> None:
    run = write_run(tmp_path, recorded(STORIES["first_failure"]))
    log(run, "node2/rank3.err", "\x1b[31mlong\x1b[0m " + "y" * 100_000 + "\n" + "line\n" * 5000)
    content = run_page(run, START + 60)
    assert len(content) < 60_000
    assert "last 80 of 5 001 lines" in seen(content).text


def test_models_that_were_not_run_stand_in_the_results(tmp_path: Path) -> None:
    events = [ev.RunStarted("demo", "local", 1, ("a", "b")), ev.RunFinished("failed", 10, "no nodes")]
    text = seen(run_page(write_run(tmp_path, recorded(events)), START + 60)).text
    assert "not run" in text
    assert "no nodes" in text


def test_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    assert "so far" in report(tmp_path, "unfinished").text


def test_nodes_that_are_alike_stand_together(tmp_path: Path) -> None:
    text = seen(run_page(write_run(tmp_path, cluster_run()), START + 1000)).text
    assert "gpu[001-011] (11) GPUs 8 × amd Instinct MI300X" in text
    assert "gpu012 GPUs 8 × amd Instinct MI300X" in text
    assert "6.8.0-48-generic" in text


def planned(**changes: object) -> Plan:
    plan = plan_for_command(command("hostname"))
    env = {
        "HF_TOKEN": EnvValue("", "--secret env:HF_TOKEN", secret=True),
        "MY_API_KEY": EnvValue("shh-42", "-e"),
        "BATCH": EnvValue("64", "-e"),
    }
    return replace(plan, cases=tuple(replace(case, env=env) for case in plan.cases), **changes)  # type: ignore[arg-type]


def test_settings_stand_with_their_origin_and_secrets_masked(tmp_path: Path) -> None:
    run = write_run(tmp_path, recorded(STORIES["success"]))
    argv = ("phalanx", "run", "--registry", "https://bob:pa55word@reg.example/x", "--", "a b")
    run.plan.write_bytes(to_json(planned(argv=argv)))
    content = run_page(run, START + 60)
    text = seen(content).text
    assert "BATCH 64 -e the run" in text
    assert "HF_TOKEN •••• --secret env:HF_TOKEN" in text
    assert "MY_API_KEY •••• -e" in text
    assert "'https://bob:••••@reg.example/x' -- 'a b'" in text
    assert b"shh-42" not in content
    assert b"pa55word" not in content


def test_ranks_that_wait_until_the_deadline_have_no_first_on_the_page_either(tmp_path: Path) -> None:
    run = write_run(tmp_path, recorded(STORIES["out_of_time"]))
    log(run, "node2/rank1.err", "waiting for the others\n")
    text = seen(run_page(run, START + 60)).text
    assert "Deadline: the script was still running on all 4 ranks stopped at its deadline of 60 s" in text
    assert "The end of the log of node2 rank 1 (local 0): waiting for the others" in text
    assert "How they ended 2 ranks: stopped at its deadline" in text
    assert "First failure" not in text
    assert "What followed" not in text


def test_a_deadline_of_one_rank_alone_is_the_first_failure_on_its_page(tmp_path: Path) -> None:
    words = "stopped at its deadline of 60 s"
    events = [
        *started(),
        *running(),
        ev.RankExited("demo", "main", "node2", 1, 143, "deadline", 60.0, words),
        ev.RankExited("demo", "main", "node1", 0, 9, "exited", 60.1),
        ev.RunFinished("failed", 3, "failed: demo"),
    ]
    text = seen(run_page(write_run(tmp_path, recorded(events)), START + 60)).text
    assert "First failure: node2 rank 1" in text
    assert "What followed 1 rank: exit 9" in text
    assert "Deadline:" not in text


def test_what_cannot_be_read_is_named_and_the_page_is_made(tmp_path: Path) -> None:
    run = write_run(tmp_path, recorded(STORIES["success"]))
    run.plan.write_text("{")
    for broken in ("[1", "[" * 100_000):
        run.identity.write_text(broken)
        text = seen(run_page(run, START + 60)).text
        assert "cannot read plan.json: line 1" in text
        assert "cannot read run.json" in text


def test_a_run_that_is_not_in_the_history_says_why(tmp_path: Path) -> None:
    run = write_run(tmp_path, recorded(STORIES["success"]))
    leave_note(run, "the disk is full")
    assert "not in the history of runs: the disk is full" in seen(run_page(run, START + 60)).text


def test_the_history_of_a_runs_models_ends_with_the_run(tmp_path: Path) -> None:
    events = cluster_run()
    ours = [dict(one) for recorded_ in events for one in getattr(recorded_.event, "rows", ())]
    later = [{**one, "performance": "777", "status": "SUCCESS"} for one in ours]
    path = with_table(tmp_path / "perf.csv", [*nightly(80), *ours, *later])
    run = write_run(tmp_path, events)
    run.plan.write_bytes(to_json(planned(output_csv=str(path))))
    text = seen(run_page(run, START + 1000)).text
    history = text.split("History")[1].split("Nodes over time")[0]
    assert "rccl_all_reduce GB/s SUCCESS 311.9" in history
    assert "777" not in history
    assert "tf_resnet50" not in history


def test_a_run_without_events_has_no_page(tmp_path: Path) -> None:
    run = write_run(tmp_path, [])
    with pytest.raises(ReportError, match="holds no event"):
        run_page(run, START)


# --- mail ----------------------------------------------------------------------------------------------


def test_a_mail_has_each_table_under_its_name_in_order_and_names_what_it_could_not_read(
    tmp_path: Path,
) -> None:
    for name in ("b", "a"):
        table(tmp_path / f"{name}.csv", [row(f"model_{name}", "1", "x")])
    (tmp_path / "c.csv").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no table")
    found = read_folder(tmp_path)
    assert [one.stem for one in found.tables] == ["a", "b"]
    assert found.unreadable == (("c.csv", "it is empty"),)
    text = seen(mail_page("Results", found.tables, found.unreadable)).text
    assert "c.csv: it is empty" in text
    assert text.index("model_a") < text.index("model_b")


def test_a_mail_has_what_mail_programs_keep_and_is_short(tmp_path: Path) -> None:
    table(tmp_path / "perf.csv", nightly(3000))
    found = read_folder(tmp_path)
    content = mail_page("Results", found.tables, ())
    page_seen = seen(content)
    assert page_seen.of("script") == page_seen.of("style") == []
    assert f"The last {MOST_ROWS} of 3 000 rows; all are in perf.csv." in page_seen.text
    assert "More columns are in perf.csv:" in page_seen.text
    assert len(content) < 700_000
