"""For test_preload.py: a module that tells who imported it, and makes something of its own."""

import os
import random

IMPORTED_BY = os.getpid()
NUMBERS = random.Random(5)  # a state that copies share


def importer(_=None) -> tuple[int, int, int]:
    """Who has imported this, whose child asks, and who asks."""
    return IMPORTED_BY, os.getppid(), os.getpid()


def next_global_number(_=None) -> float:
    return random.random()
