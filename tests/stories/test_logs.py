"""Every byte that a rank writes arrives once, in order, and lines are shown whole."""

from __future__ import annotations

import hashlib
import re
from collections import Counter

import pytest

from tests.stories.payloads import FLOOD, IN_CONTAINERS, meet
from tests.stories.program import Phalanx

pytestmark = pytest.mark.lab
LINES = 200_000


def test_four_ranks_with_200_000_lines_each_lose_no_byte_and_show_every_line_whole(phalanx: Phalanx) -> None:
    run = phalanx.run(*IN_CONTAINERS, "-q", "--", "python3", "-c", FLOOD, str(LINES))
    for rank in range(4):
        told = run.log(f"n{rank + 1}", f"rank{rank}.err").split()[0].decode()
        assert hashlib.sha256(run.log(f"n{rank + 1}", f"rank{rank}.out")).hexdigest() == told
    whole = re.compile(r"n([1-4]): rank ([0-3]) line ([0-9]+) x*")
    seen: Counter[str] = Counter()
    with (run.said / "stdout").open() as lines:
        for line in lines:
            match = whole.fullmatch(line.rstrip("\n"))
            assert match, line
            assert int(match[3]) == seen[match[1]], "out of order"
            seen[match[1]] += 1
    assert seen == dict.fromkeys("1234", LINES)


def test_a_barrier_fails_by_name_for_all_who_wait_when_a_rank_leaves_early(phalanx: Phalanx) -> None:
    waits = meet("ready").replace("--fail-with-body ", "").replace(" >/dev/null", "")
    script = f"[ $RANK = 2 ] && exit 0; {waits}; exit 5"
    run = phalanx.run(*IN_CONTAINERS, "--", "sh", "-c", script, code=5)
    failed = run.events("barrier.failed")[0]
    assert failed["name"] == "ready"
    assert "rank 2" in failed["reason"]
    assert "barrier ready cannot open" in run.stderr
    heard = [line for line in run.stdout.splitlines() if "rank 2" in line]
    assert heard
    assert all("ready" in line for line in heard)
