"""Tests of the mapping stores."""

import pytest

pytest.register_assert_rewrite("tests.support.store_contract")
