"""What a case's results cost the login node: logs searched, files chosen, records appended.

All of it with warm caches, each measurement in a process of its own: ``peak_mb`` is the peak resident memory
of that process, of which ``floor_mb`` is Python with these modules. On a machine that others use as well the
figures by CPU second are the ones to compare. Peers, in the same run on the same files: ``grep -F -m 1 -f
PATTERNS`` for errors and ``grep -E -m 1`` for the performance line, both with LC_ALL=C.

``scan``: a log of ``--megabytes`` without an error; ``scan_harmless``: one in which every hundredth line is a
harmless warning; ``extract``: ``performance:`` at the end of the first log; ``extract_last``: the last of it.
``pick``: the best of four results files of ``--rows`` rows each; ``pick_naive``: the same files read whole, a
dictionary for each row. ``append``: one record to a perf_super.json that has ``--records``; ``rewrite``: a
peer that copies the file beside it with the record and renames; ``dump``: one that parses and writes it all.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.crew import BenchmarkError
from benchmarks.report import document, show

HEAD = "model,performance,metric,batch,ttft\n"
Took = tuple[float, float]
#: Words of lines that training programs print.
WORDS = (
    "step", "loss:", "INFO", "[rank0]:", "tokens/s", "epoch", "Loading", "checkpoint", "torch.distributed",
    "2025-01-01 12:00:00,123", "grad_norm", "learning_rate", "Memory", "iteration",
)  # fmt: skip
HARMLESS_LINE = "/usr/lib/python3/site.py:12: FutureWarning: ValueError: will be raised in a later version\n"
FILES = 4


def must(right: bool, what: str) -> None:
    """A wrong result has no speed."""
    if not right:
        raise BenchmarkError(f"wrong result: {what}")


def write_log(path: Path, megabytes: int, harmless: bool) -> None:
    """A log of lines as programs print them; the performance line is its last."""
    chance = random.Random(1)
    lines = [
        " ".join(f"{chance.choice(WORDS)} {chance.randrange(10_000)}" for _ in range(7)) + "\n"
        for _ in range(10_000)
    ]
    if harmless:
        lines[::100] = [HARMLESS_LINE] * len(lines[::100])
    block = "".join(lines).encode()
    with path.open("wb") as file:
        while file.tell() < megabytes * 1_000_000:
            file.write(block)
        file.write(b"performance: 123.5 tokens/s\n")


def write_tables(folder: Path, rows: int) -> None:
    """Results files; the third has most values."""
    for number in range(FILES):
        with (folder / f"{number}.csv").open("w") as file:
            file.write(HEAD)
            for row in range(rows):
                value = "" if number != 2 and row % 10 == 0 else "12.5"
                file.write(f"m{row},{value},tok/s,{row % 64},0.25\n")


def a_record(number: int) -> dict[str, Any]:
    """A record of perf_super.json as a model of several results has it."""
    from phalanx.controller.results.perf_csv import COLUMNS

    columns = {name: f"{name} of result {number}" for name in COLUMNS}
    configs = {f"option_{option}": option for option in range(10)}
    return {**columns, "performance": 12.5, "configs": configs, "multi_results": {"ttft": 0.25}}


def write_records(path: Path, records: int) -> None:
    from phalanx.controller.results.json_array import append_records

    append_records(path, [a_record(number) for number in range(records)])


def now() -> Took:
    """Wall clock and CPU seconds of this process and those that it has waited for."""
    used = [resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter(), sum(one.ru_utime + one.ru_stime for one in used)


def since(began: Took) -> Took:
    """Wall clock and CPU seconds since."""
    wall, cpu = now()
    return wall - began[0], cpu - began[1]


# --- what is measured, each in a process of its own


def floor(folder: Path) -> Took:
    """Nothing: what a process takes that only imports."""
    from phalanx.controller.results import extract, json_array, scan, table

    must(all((extract, json_array, scan, table)), "modules")
    return 0.0, 0.0


def scan(folder: Path, name: str = "log") -> Took:
    from phalanx.controller.results.scan import first_error, rules_of

    began = now()
    must(first_error(folder / name, rules_of()) is None, "an error in a log that has none")
    return since(began)


def scan_harmless(folder: Path) -> Took:
    return scan(folder, "harmless")


def extract(folder: Path) -> Took:
    return _extract(folder, "first")


def extract_last(folder: Path) -> Took:
    return _extract(folder, "last")


def _extract(folder: Path, which: Any) -> Took:
    from phalanx.controller.results.extract import performance_of

    began = now()
    found = performance_of(folder / "log", which)
    took = since(began)
    must(found is not None and found.value == "123.5", "the performance of the log")
    return took


def pick(folder: Path) -> Took:
    from phalanx.controller.results.table import Candidate, best

    files = [Candidate(f"n{n}", n, folder / f"{n}.csv", f"n{n}") for n in range(FILES)]
    began = now()
    choice, unusable = best(files)
    took = since(began)
    must(choice is not None and choice.candidate.node == "n2" and not unusable, "the best results file")
    return took


def pick_naive(folder: Path) -> Took:
    began = now()
    tables = []
    for number in range(FILES):
        with (folder / f"{number}.csv").open(newline="") as file:
            tables.append(list(csv.DictReader(file)))
    counts = [sum(1 for row in table if row["performance"]) for table in tables]
    must(counts.index(max(counts)) == 2, "the best results file")
    return since(began)


def append(folder: Path) -> Took:
    from phalanx.controller.results.json_array import append_records

    path = folder / "perf_super.json"
    before = path.stat().st_size
    began = now()
    append_records(path, [a_record(0)])
    took = since(began)
    with path.open("rb") as file:
        file.seek(-3, os.SEEK_END)
        must(file.read() == b"\n]\n" and file.tell() > before, "a record was appended")
    return took


def rewrite(folder: Path) -> Took:
    from phalanx.controller.results.json_array import line_of

    path, fresh = folder / "perf_super.json", folder / "fresh.json"
    began = now()
    with path.open("rb") as old, fresh.open("wb") as new:
        shutil.copyfileobj(old, new, 1024 * 1024)
        new.seek(-3, os.SEEK_END)
        new.write(b",\n" + line_of(a_record(0)) + b"\n]\n")
        new.flush()
        os.fsync(new.fileno())
    fresh.replace(path)
    return since(began)


def dump(folder: Path) -> Took:
    path = folder / "perf_super.json"
    began = now()
    found = json.loads(path.read_bytes())
    found.append(a_record(0))
    path.write_text(json.dumps(found, indent=2))
    return since(began)


def grep_errors(folder: Path) -> Took:
    from phalanx.controller.results.scan import ERRORS

    patterns = folder / "patterns"
    patterns.write_text("".join(f"{text}\n" for text in ERRORS))
    return _grep(("-F", "-m", "1", "-f", str(patterns), str(folder / "log")), 1)


def grep_performance(folder: Path) -> Took:
    form = r"performance:[[:space:]]+[+-]?[0-9.]+"
    return _grep(("-E", "-m", "1", form, str(folder / "log")), 0)


def _grep(words: tuple[str, ...], status: int) -> Took:
    began = now()
    # A pipe: with its output at /dev/null grep would stop at the first match by itself.
    done = subprocess.run(
        ("grep", *words), env={**os.environ, "LC_ALL": "C"}, stdout=subprocess.PIPE, check=False
    )
    took = since(began)
    must(done.returncode == status, f"grep ended with {done.returncode}")
    return took


#: name -> what is measured, and whose speed is told in megabytes of the log.
LOGS = (scan, scan_harmless, extract, extract_last, grep_errors, grep_performance)
TABLES = (pick, pick_naive)
#: ``dump`` leaves a file of another form, so it is the last.
RECORDS = (append, rewrite, dump)
WORK: dict[str, Callable[[Path], Took]] = {one.__name__: one for one in (floor, *LOGS, *TABLES, *RECORDS)}


def apart(name: str, folder: Path) -> tuple[float, float, float]:
    """Seconds, CPU seconds and peak megabytes of a measurement in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--work", name, "--folder", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"{name} failed: {done.stderr[-800:]}")
    wall, cpu, peak = map(float, done.stdout.split())
    return wall, cpu, round(peak, 1)


def work(name: str, folder: Path) -> None:
    """One measurement; seconds, CPU seconds and peak megabytes are printed.

    VmHWM of proc(5), not getrusage(2): that one has the memory of whoever started the process as its floor.
    """
    wall, cpu = WORK[name](folder)
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(wall, cpu, int(peak[1]) / 1024 if peak else 0.0)


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run of everything."""
    found: dict[str, Any] = {
        "log_mb": options.megabytes, "table_rows": options.rows, "tables": FILES, "records": options.records
    }  # fmt: skip
    found["floor_mb"] = apart("floor", folder)[2]
    size = (folder / "log").stat().st_size / 1e6
    for one in LOGS:
        wall, cpu, peak = apart(one.__name__, folder)
        figures = {"mb_per_s": round(size / wall, 1), "mb_per_cpu_s": round(size / cpu, 1)}
        found[one.__name__] = figures | ({} if one.__name__.startswith("grep") else {"peak_mb": peak})
    for one in TABLES:
        wall, cpu, peak = apart(one.__name__, folder)
        rate = round(FILES * options.rows / wall)
        figures = {"s": round(wall, 3), "cpu_s": round(cpu, 3), "rows_per_s": rate}
        found[one.__name__] = figures | {"peak_mb": peak}
    write_records(folder / "perf_super.json", options.records)
    found["records_mb"] = round((folder / "perf_super.json").stat().st_size / 1e6, 1)
    for one in RECORDS:
        wall, cpu, peak = apart(one.__name__, folder)
        found[one.__name__] = {"ms": round(wall * 1000, 2), "cpu_ms": round(cpu * 1000, 2), "peak_mb": peak}
    (folder / "perf_super.json").unlink()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--folder", type=Path, help="where the files are made; some gigabytes")
    parser.add_argument("--work", choices=WORK, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.folder)
        return
    with tempfile.TemporaryDirectory(prefix="phalanx-results-", dir=options.folder) as place:
        folder = Path(place)
        write_log(folder / "log", options.megabytes, harmless=False)
        write_log(folder / "harmless", options.megabytes, harmless=True)
        write_tables(folder, options.rows)
        for path in folder.iterdir():
            path.read_bytes()  # caches are warm, what was written is on its way to the disk
        os.sync()
        samples = [measure(folder, options) for _ in range(options.runs)]
    show(document(samples), options.json)


if __name__ == "__main__":
    main()
