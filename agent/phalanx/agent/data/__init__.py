"""Data sets on a node: where a case finds them, and the program that brings them there.

``places`` is part of the agent. Everything else runs as a process of its own, one for each data set, so that
a download of hours neither holds up a heartbeat nor makes the agent heavier, and can be ended like any step.
"""
