"""``phalanx database`` as a program against a real server: what is in the collection afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from phalanx.controller.results.database.address import address_of
from phalanx.controller.results.database.mongo import carry_out
from phalanx.controller.results.database.upload import Tally
from pymongo.asynchronous.collection import AsyncCollection

from tests.cli.driver import Done, Phalanx, Terminal

from .conftest import Database
from .rows import of, perf_csv, result
from .rows import upload as a_plan

pytestmark = pytest.mark.mongo

Upload = Callable[..., Done]


def stored(database: Database, **query: Any) -> list[dict[str, Any]]:
    return list(database.results.find(query, {"_id": 0}).sort("performance"))


def counts(done: Done) -> dict[str, int]:
    document = json.loads(done.out)
    return {name: document[name] for name in ("inserted", "updated", "unchanged", "failed")}


def test_rows_become_documents_with_types_and_times(
    upload: Upload, database: Database, tmp_path: Path
) -> None:
    began = datetime.now(UTC)
    done = upload(perf_csv(tmp_path / "perf.csv", result(), result("gpt", "")))
    assert (done.code, done.err) == (0, "")
    server = database.client.address
    assert done.out == (
        f"success: 2 rows of {tmp_path}/perf.csv to perf.results on {server[0]}:{server[1]}: "
        "2 inserted, 0 updated, 0 unchanged, 0 failed\n"
    )
    failed, good = stored(database)
    assert (failed["model"], failed["performance"], good["performance"]) == ("gpt", None, 14164.0)
    assert (good["n_gpus"], good["docker_sha"], good["machine_name"]) == (16, "1234567", "4711")
    assert good["args"] == "--steps 5"
    assert abs((good["_meta_uploaded_at"] - began).total_seconds()) < 60
    assert good["created_date"] == good["_meta_uploaded_at"].strftime("%Y-%m-%d %H:%M:%S")


def test_a_file_twice_is_there_once_and_the_next_run_s_beside_it(
    upload: Upload, database: Database, tmp_path: Path
) -> None:
    first = perf_csv(tmp_path / "first.csv", result(), result(), result("gpt"))
    assert counts(upload(first, "--json")) == {"inserted": 3, "updated": 0, "unchanged": 0, "failed": 0}
    before = stored(database)
    assert counts(upload(first, "--json")) == {"inserted": 0, "updated": 0, "unchanged": 3, "failed": 0}
    assert stored(database) == before
    following = perf_csv(tmp_path / "next.csv", result(performance="15000"))
    assert counts(upload(following, "--json")) == {"inserted": 1, "updated": 0, "unchanged": 0, "failed": 0}
    assert [one["performance"] for one in stored(database, model="bert")] == [14164.0, 14164.0, 15000.0]


def test_a_perf_csv_that_grew_and_got_wider_adds_what_is_new(
    upload: Upload, database: Database, tmp_path: Path
) -> None:
    path = perf_csv(tmp_path / "perf.csv", result())
    upload(path)
    perf_csv(path, result("gpt", tokens="7"))
    assert counts(upload(path, "--json")) == {"inserted": 1, "updated": 0, "unchanged": 1, "failed": 0}


def test_lists_nan_and_nested_results_are_stored(upload: Upload, database: Database, tmp_path: Path) -> None:
    path = tmp_path / "perf_super.json"
    path.write_text(
        '[{"model": "a", "performance": NaN, "configs": [{"lr.x": 0.1}], "multi_results": {"$t": 1}}]'
    )
    done = upload(path)
    assert done.code == 0
    assert "'lr.x' as 'lr_x'" in done.err
    (found,) = stored(database)
    assert (found["performance"], found["configs"], found["multi_results"]) == (
        None,
        [{"lr_x": 0.1}],
        {"_t": 1},
    )


def test_a_key_of_fields_updates_the_row_that_changed_and_no_other(
    upload: Upload, database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    rows = [{"model": name, "n": 1, "performance": 1, "configs": [1, {"a": 2}]} for name in "ab"]
    path.write_text(json.dumps(rows))
    assert counts(upload(path, "-k", "model,n", "--json"))["inserted"] == 2
    one, two = stored(database)
    rows[1]["performance"] = 2
    path.write_text(json.dumps(rows))
    done = upload(path, "-k", "model", "-k", "n", "--json")
    assert counts(done) == {"inserted": 0, "updated": 1, "unchanged": 1, "failed": 0}
    assert json.loads(done.out)["key"] == ["model", "n"]
    same, changed = stored(database)
    assert same == one
    assert (changed["performance"], changed["created_date"]) == (2, two["created_date"])
    assert changed["_meta_uploaded_at"] > two["_meta_uploaded_at"]


def test_fields_that_a_row_does_not_have_stay(upload: Upload, database: Database, tmp_path: Path) -> None:
    database.results.insert_one({"model": "a", "note": "by hand"})
    path = tmp_path / "a.json"
    path.write_text('{"model": "a", "performance": 3}')
    assert counts(upload(path, "-k", "model", "--json"))["updated"] == 1
    (found,) = stored(database)
    assert (found["note"], found["performance"]) == ("by hand", 3)
    assert found["created_date"]


def test_a_row_of_nothing_but_its_key_has_its_times_too(
    upload: Upload, database: Database, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"model": "a"}')
    upload(path, "-k", "model")
    assert set(stored(database)[0]) == {"model", "created_date", "_meta_uploaded_at"}


def test_indexes_are_made_once_and_strangers_in_the_collection_do_not_matter(
    upload: Upload, database: Database, tmp_path: Path
) -> None:
    database.results.insert_many([{"other": 1}, {"other": 2}])
    path = perf_csv(tmp_path / "perf.csv", result())
    for _ in range(2):
        assert upload(path, "-k", "model,git_commit").code == 0
        names = set(database.results.index_information())
        assert names == {
            *("_id_", "phalanx_unique_model_git_commit"),
            *("phalanx_created_date", "phalanx_status", "phalanx_pipeline"),
        }
    assert database.results.index_information()["phalanx_unique_model_git_commit"]["unique"]


def test_no_index_makes_none(upload: Upload, database: Database, tmp_path: Path) -> None:
    upload(perf_csv(tmp_path / "perf.csv", result()), "--no-index")
    assert set(database.results.index_information()) == {"_id_"}


def test_a_key_that_stored_documents_share_is_refused_before_anything_is_written(
    upload: Upload, database: Database, tmp_path: Path
) -> None:
    database.results.insert_many([{"model": "bert"}, {"model": "bert"}])
    path = perf_csv(tmp_path / "perf.csv", result(), result("new"))
    done = upload(path, "-k", "model")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith("phalanx: cannot make model unique in perf.results, so nothing was uploaded: ")
    assert "{'model': 'bert'}" in done.err
    assert "--no-index" in done.err
    assert database.results.count_documents({}) == 2
    assert upload(path, "-k", "model", "--no-index").code == 0
    assert database.results.count_documents({}) == 3


def test_without_upsert_every_upload_adds_its_rows(
    upload: Upload, database: Database, tmp_path: Path
) -> None:
    path = perf_csv(tmp_path / "perf.csv", result())
    for count in (1, 2):
        assert counts(upload(path, "--no-upsert", "--json"))["inserted"] == 1
        assert database.results.count_documents({}) == count


def test_rows_whose_key_is_taken_are_named_and_the_others_are_stored(
    upload: Upload, database: Database, tmp_path: Path
) -> None:
    upload(perf_csv(tmp_path / "a.csv", result()), "-k", "model")
    path = perf_csv(tmp_path / "b.csv", result("new"), result(performance="1"))
    done = upload(path, "-k", "model", "--no-upsert")
    assert done.code == 1
    assert done.out.startswith("partial: 2 rows ")
    assert done.out.endswith("1 inserted, 0 updated, 0 unchanged, 1 failed\n")
    assert "phalanx: row 3: the collection has a document of its key already" in done.err
    done = upload(path, "-k", "model", "--no-upsert", "--json")
    document = json.loads(done.out)
    assert (done.code, document["status"]) == (1, "failed")
    assert [one["row"] for one in document["errors"]] == ["row 2", "row 3"]


def test_thousands_of_rows_go_in_batches(upload: Upload, database: Database, tmp_path: Path) -> None:
    path = perf_csv(tmp_path / "perf.csv", *(result(performance=str(number)) for number in range(5000)))
    assert counts(upload(path, "--batch-size", "700", "--json"))["inserted"] == 5000
    assert database.results.count_documents({}) == 5000
    assert len(database.results.distinct("performance")) == 5000


def test_ctrl_c_says_how_far_it_came_and_again_goes_on(
    phalanx: Phalanx, server: Any, upload: Upload, database: Database, tmp_path: Path
) -> None:
    path = perf_csv(tmp_path / "perf.csv", *(result(performance=str(number)) for number in range(1000)))
    words = ("database", "-f", str(path), "--db", "perf", "-c", "results", "--batch-size", "1")
    with Terminal(phalanx, *words, env={"MONGO_URI": server.uri}) as terminal:
        terminal.until("5 of 1000 rows")
        terminal.type(b"\x03")
        assert terminal.ended() == 130
    assert b"partial: 1000 rows" in terminal.output
    assert b"phalanx: interrupted; uploading the file again goes on where it stopped" in terminal.output
    assert b"Traceback" not in terminal.output
    there = database.results.count_documents({})
    assert 0 < there < 1000
    assert counts(upload(path, "--json"))["inserted"] == 1000 - there


async def test_a_cancellation_that_the_client_swallows_still_ends_the_upload(
    server: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = a_plan(of(*({"n": number} for number in range(9))))
    tally = Tally(9)
    write = AsyncCollection.bulk_write

    async def swallowing(*words: Any, **options: Any) -> Any:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)
        return await write(*words, **options)

    def cancel() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    monkeypatch.setattr(AsyncCollection, "bulk_write", swallowing)
    task = asyncio.create_task(carry_out(made, address_of({"MONGO_URI": server.uri}), tally, cancel))
    with pytest.raises(asyncio.CancelledError):
        await task
    assert tally.inserted == 2
    assert database.results.count_documents({}) == 2
