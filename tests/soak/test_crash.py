"""A process that is killed -9 between any two steps of a creation or a deletion leaves nothing that is not settled.

`make soak ARGS=crash` goes through the whole matrix, again and again.
"""

from pathlib import Path

import pytest

from soak.crash import crash_matrix, every_point
from soak.deployment import STORES
from tests.conftest import LOGS

SEED = 15


@pytest.mark.parametrize("store", STORES)
async def test_whatever_the_point_of_a_kill_the_rule_of_one_identity_holds_afterwards(
    store: str, tmp_path: Path
) -> None:
    outcome = await crash_matrix(store, tmp_path, every_point(store, SEED), SEED)
    LOGS.read(outcome.logs)
    assert outcome.broken == ()
    assert outcome.missed == ()
    assert outcome.orphans <= outcome.allowed
