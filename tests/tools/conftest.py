"""The place that all of these tests run in."""

from .place import place as place
