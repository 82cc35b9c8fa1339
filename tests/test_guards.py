"""The guards around every test notice what they are there for: a blocked event loop, a session that nobody closed."""

import gc
from pathlib import Path
from types import CodeType

import pytest

from tests.support.blocking import BlockingError
from upstream.http_session import new_http_session

ROOT = Path(__file__).parent.parent


def as_if_in(path: str, source: str) -> CodeType:
    """Code that looks as if it stood in this file of ours."""
    return compile(source, str(ROOT / path), "exec")


async def test_code_of_ours_that_blocks_the_event_loop_fails_its_test() -> None:
    for path in ("quart_app/identities/service.py", "storage/sqlite.py"):
        with pytest.raises(BlockingError):
            exec(as_if_in(path, "import time\ntime.sleep(0.01)"), {})
        with pytest.raises(BlockingError):
            exec(as_if_in(path, "open('/dev/null')"), {})


async def test_other_code_may_block() -> None:
    exec(as_if_in("tests/elsewhere.py", "import time\ntime.sleep(0)"), {})


async def test_a_session_that_nobody_closes_fails_its_test() -> None:
    sessions = [new_http_session()]
    gc.collect()
    with pytest.warns(ResourceWarning, match="Unclosed client session"):
        sessions.clear()
    gc.collect()
