"""Facts: what a node is, as it can tell itself. Unknown is a value, never an error."""

from .gather import gather

__all__ = ["gather"]
