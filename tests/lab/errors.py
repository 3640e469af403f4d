"""The one error of the lab: what cannot be done, why, and the next step, in one line a person can act on."""

from __future__ import annotations


class LabError(Exception):
    """The lab could not do what was asked. The text opens with "cannot" and ends with the next step."""
