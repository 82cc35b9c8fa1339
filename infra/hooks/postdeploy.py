"""After the service was deployed: whether it is ready, and with a caller's token at hand, whether it gives tokens."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable

from infra.hooks.azd import Azure, Environment, Refused, run, say

ATTEMPTS, WAIT_SECONDS = 60, 5
Answer = tuple[int, str]
"""Status and body; status 0 for no answer."""
Send = Callable[[str, str, str], Answer]
"""Sends a request: method, URL, bearer token or nothing."""


def postdeploy(environment: Environment, _: Azure) -> None:
    """Raises `Refused` with what the service answered last."""
    smoke_test(environment, send, time.sleep)


def smoke_test(environment: Environment, sending: Send, sleep: Callable[[float], None]) -> None:
    """Waits until the service is ready, then makes a round trip if `SMOKE_TEST_TOKEN` is set. Raises `Refused`."""
    uri = environment.get("SERVICE_API_URI")
    for switch, who in (("INTERNAL_INGRESS", "inside its network"), ("ONLY_FRONT_DOOR", "to Front Door")):
        if environment.get(switch).lower() in ("true", "1"):
            say(f"Not checked: {uri} answers {who} only.")
            return
    answer: Answer = (0, "")
    for attempt in range(ATTEMPTS):
        if attempt:
            sleep(WAIT_SECONDS)
        answer = sending("GET", f"{uri}/health/ready", "")
        if answer[0] == 200:
            break
    else:
        raise Refused(_not_ready(environment, uri, answer))
    say(f"Ready: {uri}")
    if token := environment.get("SMOKE_TEST_TOKEN"):
        _round_trip(uri, token, sending)
    else:
        say("Not checked: a round trip. Give it a caller's token: SMOKE_TEST_TOKEN=$(acs-auth token) azd deploy")


def send(method: str, url: str, token: str) -> Answer:
    """Sends a request to the service."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, method=method, headers=headers)  # noqa: S310 (the deployed address)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:  # noqa: S310
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode(errors="replace")
    except OSError as error:
        return 0, str(error)


def _not_ready(environment: Environment, uri: str, answer: Answer) -> str:
    logs = (
        f"az containerapp logs show --name {environment.get('SERVICE_API_NAME')} "
        f"--resource-group {environment.get('AZURE_RESOURCE_GROUP')} --tail 50"
    )
    said = f"status {answer[0]}, {answer[1][:300]}" if answer[0] else answer[1]
    return f"The service is deployed but not ready after {ATTEMPTS * WAIT_SECONDS} s ({said}). Look at: {logs}"


def _round_trip(uri: str, token: str, sending: Send) -> None:
    """Gets the caller's identity and an access token; deletes the identity again if it was made for this."""
    status, body = sending("POST", f"{uri}/api/user", token)
    if status not in (200, 201):
        raise Refused(f"POST /api/user answered {status}: {_error(body)}")
    made = status == 201
    status, body = sending("GET", f"{uri}/api/token", token)
    if made:
        sending("DELETE", f"{uri}/api/user", token)
    if status != 201:
        raise Refused(f"GET /api/token answered {status}: {_error(body)}")
    say("A round trip works: the caller has an identity, and ACS gave a token for it.")


def _error(body: str) -> str:
    """The error's name and message, never the rest of an answer: that could hold a token."""
    try:
        found = json.loads(body)
        return f"{found['error']}: {found['message']}"
    except (ValueError, KeyError, TypeError):
        return "no reason was given."


if __name__ == "__main__":
    run(postdeploy)
