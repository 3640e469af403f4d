"""``python -m phalanx.controller.cli``: the command where its script is not on the PATH."""

from phalanx.controller.cli.entry import main

if __name__ == "__main__":
    main()
