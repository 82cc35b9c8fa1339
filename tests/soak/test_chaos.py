"""Whatever the upstreams do, users keep their one identity, and every answer is one of the contract and comes in time.

`make soak ARGS=chaos` is the long form: four processes, 500 users, 10,000 calls.
"""

from pathlib import Path

import pytest

from soak.chaos import Plan, chaos, departures
from soak.deployment import STORES, Answer
from tests.conftest import LOGS

SEED = 15
SHORT = Plan(processes=2, users=30, operations=150, trouble=0.25, concurrency=24, deadline_seconds=3.0)


@pytest.mark.parametrize("store", STORES)
async def test_no_trouble_of_the_upstreams_breaks_an_invariant_the_contract_or_a_deadline(
    store: str, tmp_path: Path
) -> None:
    outcome = await chaos(store, tmp_path, SHORT, SEED)
    LOGS.read(outcome.logs)
    assert outcome.broken == []
    assert outcome.faults.total() > 5


GOOD = {"code": 503, "error": "service_unavailable", "message": "Later.", "requestId": "1"}


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer(503, GOOD, {"Retry-After": "1"}), []),
        (Answer(503, GOOD, {}), ["503 service_unavailable has no Retry-After"]),
        (Answer(502, None, {}), ["502 None does not have the form of the contract"]),
        (Answer(502, GOOD | {"code": 502}, {}), ["502 service_unavailable is not a name of the contract"]),
        (
            Answer(500, GOOD | {"code": 500, "error": "internal_error"}, {}),
            ["500 internal_error is no answer to trouble of an upstream"],
        ),
    ],
)
def test_an_answer_beyond_the_contract_is_told(answer: Answer, told: list[str]) -> None:
    assert departures(answer) == told
