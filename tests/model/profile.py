"""The Hypothesis profile of the pure tests: no deadlines, no randomness from run to run."""

from hypothesis import settings

FEW = settings(deadline=None, derandomize=True, max_examples=100)
