"""Facts: what a node is, as it can tell itself. Unknown is a value, never an error. See ``gather``."""
