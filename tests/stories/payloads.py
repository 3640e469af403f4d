"""What the ranks of the stories run: shell and Python that the test image has."""

from __future__ import annotations

from tests.lab.image import NAME

#: Four containers on the lab, image already there.
IN_CONTAINERS = ("run", "--target", "slurm", "-N4", "--image", NAME)
#: Short times, so that a test needs not wait long for a verdict. The lease is in seconds.
LEASE_S = 4
IN_A_HURRY = ("--heartbeat", "0.3", "--dead-after", "1.5", "--lease", str(LEASE_S), "--stop-grace", "2")


def meet(name: str) -> str:
    """A line of shell that waits until all ranks are at a barrier."""
    return (
        'curl -sS --fail-with-body --unix-socket "$PHALANX_SOCKET" -X POST'
        f' "http://x/barrier/{name}?rank=$PHALANX_RANK" >/dev/null'
    )


#: Says a word, meets the others, says that they met, and sleeps for longer than any test lasts.
MEET_AND_SLEEP = f'echo "rank $RANK is up"; {meet("up")}; echo "rank $RANK met"; sleep 600'

#: As above, and writes last words when it is told to end.
LAST_WORDS = (
    "trap 'echo \"last words of $RANK\"; exit 0' TERM; "
    f'echo "rank $RANK is up"; {meet("up")}; echo "rank $RANK met"; while :; do sleep 0.1; done'
)

#: Numbered lines as fast as they come, for FIRST_ARG seconds; the digest of all of them goes into a result.
COUNT_AND_HASH = """
import hashlib, os, sys, time
digest, number = hashlib.sha256(), 0
until = time.monotonic() + float(sys.argv[1])
rank = os.environ["RANK"]
while time.monotonic() < until:
    for _ in range(200):
        line = b"rank %s line %d %s\\n" % (rank.encode(), number, b"x" * (number % 97))
        digest.update(line)
        sys.stdout.buffer.write(line)
        number += 1
    sys.stdout.buffer.flush()
    time.sleep(0.05)
sys.stderr.write("%s %d\\n" % (digest.hexdigest(), number))
"""

#: The same without a pause: FIRST_ARG lines.
FLOOD = """
import hashlib, os, sys
digest, rank = hashlib.sha256(), os.environ["RANK"].encode()
out = sys.stdout.buffer
for number in range(int(sys.argv[1])):
    line = b"rank %s line %d %s\\n" % (rank, number, b"x" * (number % 97))
    digest.update(line)
    out.write(line)
out.flush()
sys.stderr.write("%s %s\\n" % (digest.hexdigest(), sys.argv[1]))
"""
