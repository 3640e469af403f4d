"""The ``phalanx`` command, with the controller that plays a part in place of the real one."""

from __future__ import annotations

from phalanx.controller.cli.entry import main
from phalanx.controller.runs import launch

from tests.runs import fake_controller

if __name__ == "__main__":
    launch.conduct = fake_controller.conduct
    main()
