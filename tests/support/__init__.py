"""Helpers of the tests: every other file below `tests` is a test, or its fixtures."""

import pytest

pytest.register_assert_rewrite("tests.support.store_contract")
