"""What the service's answers say."""

from typing import Any


async def error_of(answer: Any) -> tuple[int, str]:
    """The status and the error's name of a refusal, which is complete: a client and a log line can be put together."""
    body = await answer.get_json()
    assert set(body) >= {"code", "error", "message", "requestId"}
    assert body["code"] == answer.status_code
    assert body["requestId"] == answer.headers["X-Request-Id"]
    return answer.status_code, body["error"]
