"""What a workload runs in. ``base`` is the interface; ``process`` needs no engine, ``docker`` speaks to one.

Nothing is imported here: an agent that never opens an engine never pays for its client.
"""
