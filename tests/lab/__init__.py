"""A real many-node Slurm and Docker cluster on one machine, for tests and for use by hand.

lab = Lab.up(name="t1", nodes=4, docker=True)
lab.exec("n1", ["hostname"]).stdout
lab.down()
"""

from tests.lab.errors import LabError
from tests.lab.lab import Lab, NodeStats, NodeStatus
from tests.lab.parts import missing_parts

__all__ = ["Lab", "LabError", "NodeStats", "NodeStatus", "missing_parts"]
