"""The service over HTTP does what a model of a few lines says, in any order of calls and faults.

`make soak ARGS=machine` is the long form.
"""

from pathlib import Path

import pytest

from soak.deployment import STORES
from soak.machine import explore
from tests.conftest import LOGS

SEED = 15


@pytest.mark.parametrize("store", STORES)
def test_two_processes_answer_as_the_model_does(store: str, tmp_path: Path) -> None:
    outcome = explore(store, tmp_path, examples=10, steps=20, seed=SEED)
    LOGS.read(outcome.logs)
    assert outcome.found is None
    assert outcome.examples >= 10
    assert outcome.calls["POST /api/user: 201"] > 10
