"""A model of a scope whose script is a Python file."""

print("performance: 18.75 summaries/s")
