"""Leaves out the tests of the demo where an interpreter lacks the dependencies."""

import importlib.util

DEPENDENCIES = ("rich", "psutil", "matplotlib")

collect_ignore = (
    []
    if all(importlib.util.find_spec(name) for name in DEPENDENCIES)
    else ["test_demo.py", "test_chart.py"]
)
