"""Helpers of the tests: every other file below `tests` is a test, or its fixtures."""
