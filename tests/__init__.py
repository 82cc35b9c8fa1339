import pytest

# Before anything imports them: what a helper asserts is explained like what a test asserts.
pytest.register_assert_rewrite("tests.support")
