"""The OpenAPI document tried by schemathesis with all its checks, then random requests, headers and tokens: no 5xx."""

import argparse
import asyncio
import base64
import json
import random
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, STDOUT, create_subprocess_exec
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jwt import PyJWS

from local_azure.entra.directory import User
from quart_app.web.error_names import ErrorName, names_of
from soak.deployment import Deployment, deployed

PATIENCE_SECONDS = 60
AT_ONCE = 16
NOT_SUPPORTED = ErrorName.NOT_IMPLEMENTED
"""The one 5xx that a request may earn: RFC 9112, section 6.1, of a transfer coding that is not understood."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What schemathesis found: its exit status (0: no check failed) and what it printed."""

    status: int | None
    told: str


@dataclass(slots=True)
class Fuzzed:
    """The answers by status and name, and what broke: the request and a sentence."""

    answers: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)


async def try_document(url: str, bearer: str, directory: Path, examples: int, seed: int) -> Trial:
    """Let schemathesis try every operation of the document as a signed-in caller, `examples` times each."""
    process = await create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json"),
        *("--checks", "all", "--continue-on-failure", "--no-color"),
        *("--header", f"Authorization:{bearer}", "--max-examples", str(examples), "--seed", str(seed)),
        cwd=directory,
        stdout=PIPE,
        stderr=STDOUT,
    )
    out, _ = await process.communicate()
    return Trial(process.returncode, out.decode())


async def fuzz(deployment: Deployment, url: str, requests: int, seed: int) -> Fuzzed:
    """Send so many random requests, each on a connection of its own."""
    drawn = random.Random(seed)
    makers = _Makers(drawn, deployment, deployment.users[0])
    left = iter([makers.request() for _ in range(requests)])
    done = Fuzzed()

    async def work() -> None:
        for request in left:
            answer = await _answer(url, request)
            name, faults = _judged(request, answer)
            done.answers[name] += 1
            done.broken += [f"{fault}: {request[:400]!r}" for fault in faults]

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return done


async def _answer(url: str, request: bytes) -> bytes:
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            writer.write(request)
            return await reader.read()
    except TimeoutError:
        return b"(no end)"
    except OSError:  # it was answered and closed while the request was still being sent
        return b"(reset)"
    finally:
        writer.transport.abort()


def _judged(request: bytes, answer: bytes) -> tuple[str, list[str]]:
    if answer == b"(reset)":
        return "reset", []
    head, _, body = answer.partition(b"\r\n\r\n")
    if head.startswith(b"HTTP/1.1 100"):
        head, _, body = body.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1."):
        return "none", [f"no answer but {answer[:40]!r}"]
    status = int(words[1])
    if status < 400:
        return str(status), []
    if status == 404 and b"content-type: text/html" in head.lower() and b"\r\naccept: text/html" in request.lower():
        return "404 page", []  # for a browser that opens an address
    if b"content-type: application/json" not in head.lower():
        return str(status), [f"{status} is not JSON"] if body else []
    try:
        error = json.loads(body)
    except ValueError:
        return str(status), [] if not body else [f"{status} with a body that is not JSON"]
    name = error.get("error")
    faults = []
    if name not in names_of(status) or error.get("code") != status:
        faults.append(f"{status} {name} is not a name of the contract")
    if status >= 500 and name != NOT_SUPPORTED:
        faults.append(f"{status} {name}")
    return f"{status} {name}", faults


class _Makers:
    """Draws requests. What is made begins with something good, of which parts are changed: pure noise dies early."""

    def __init__(self, drawn: random.Random, deployment: Deployment, user: User) -> None:
        self._drawn = drawn
        self._user = user
        self._good = deployment.bearer(user)["Authorization"].removeprefix("Bearer ")
        self._teams = deployment.azure.entra.teams_token(user)
        self._key = deployment.azure.entra.keys.current

    def request(self) -> bytes:
        """A whole request."""
        drawn = self._drawn
        method = drawn.choice([*["GET"] * 6, "POST", "DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "X", "get"])
        target = drawn.choice(_TARGETS) + drawn.choice(
            [*[""] * 20, "?", "?a=b&a=c", "?%00", "/", "//", "/%2e%2e", ";x"]
        )
        authorization = b"Authorization: " + self._credentials()
        lines = [f"{method} {target} HTTP/1.1".encode(), b"Host: localhost"]
        lines += drawn.choice([[authorization], [authorization], [authorization, authorization], []])
        if "eams" in target or drawn.random() < 0.1:
            lines.append(b"teams-user-aad-token: " + drawn.choice([self._teams.encode(), self._token()]))
        lines += [self._header() for _ in range(drawn.choice([0, 1, 1, 2, 5]))]
        body = drawn.choice([b"", b"", b"", b"{}", self._bytes(200), self._users(), self._users()])
        if body.startswith(b'{"userIds"') and drawn.random() < 0.8:
            lines.append(b"Content-Type: application/json")
        if body and drawn.random() < 0.8:
            lines.append(b"Content-Length: " + str(len(body)).encode())
        lines.append(b"Connection: close")
        return b"\r\n".join([*lines, b"", body])

    def _credentials(self) -> bytes:
        drawn = self._drawn
        scheme = drawn.choice(
            [*[b"Bearer "] * 8, b"bearer ", b"Bearer", b"Bearer  ", b"Basic ", b"DPoP ", self._bytes(8)]
        )
        return scheme + drawn.choice([self._good.encode(), self._token(), self._token(), self._bytes(60)])

    def _token(self) -> bytes:
        """A genuine token of odd claims, or a good one that was changed anywhere."""
        drawn = self._drawn
        match drawn.randrange(5):
            case 0:
                claims = json.loads(_decoded(self._good.split(".")[1]))
                for name in drawn.sample(sorted(claims), 2):
                    claims[name] = self._value(3)
                claims[drawn.choice(_CLAIMS)] = self._value(3)
                payload = json.dumps(claims).encode()
                headers = {"kid": self._key.kid}
                return PyJWS().encode(payload, self._key.private_key, algorithm="RS256", headers=headers).encode()
            case 1:
                header = json.loads(_decoded(self._good.split(".")[0]))
                header[drawn.choice(_HEADERS)] = self._value(3)
                return b".".join([_encoded(json.dumps(header).encode()), *self._good.encode().split(b".")[1:]])
            case 2:
                token = bytearray(self._good.encode())
                for _ in range(drawn.choice([1, 1, 3, 20])):
                    token[drawn.randrange(len(token))] = drawn.choice(_VISIBLE)
                return bytes(token)
            case 3:
                parts = self._good.encode().split(b".")
                drawn.shuffle(parts)
                return b".".join(parts[: drawn.randrange(4)] * drawn.choice([1, 1, 2, 50]))
            case _:
                return b".".join(_encoded(self._json()) for _ in range(drawn.choice([2, 3, 3, 3, 5])))

    def _users(self) -> bytes:
        """A question for the identities of users, many of whom are none."""
        drawn = self._drawn
        known = [self._user.object_id, self._user.object_id.upper(), "99999999-0000-4000-8000-000000000000"]
        asked = [drawn.choice([*known, self._value(2)]) for _ in range(drawn.choice([0, 1, 2, 100, 101]))]
        return json.dumps({"userIds": asked}).encode()

    def _json(self) -> bytes:
        return self._drawn.choice([json.dumps(self._value(4)).encode(), self._bytes(60), b"{" * 3000, b'{"a":1e999}'])

    def _value(self, depth: int) -> Any:
        drawn = self._drawn
        if depth and drawn.random() < 0.4:
            items = [self._value(depth - 1) for _ in range(drawn.randrange(4))]
            return items if drawn.random() < 0.5 else {drawn.choice(_CLAIMS): item for item in items}
        return drawn.choice(
            [None, True, -1, 0, 1e300, float("nan"), 10**400, "", "\x00", "\ud800", "RS256", "none", "x" * 5000, "é"]
        )

    def _header(self) -> bytes:
        drawn = self._drawn
        name = drawn.choice(_NAMES).encode()
        value = drawn.choice([*_VALUES, self._bytes(40), self._bytes(5000)])
        return name + b": " + value

    def _bytes(self, most: int) -> bytes:
        """Anything that a header line can hold, whether or not it is allowed there."""
        drawn = self._drawn
        alphabet = drawn.choice([_VISIBLE, _ALL])
        return bytes(drawn.choice(alphabet) for _ in range(drawn.randrange(most)))


_VISIBLE = bytes(range(33, 127))
_ALL = bytes(number for number in range(256) if number not in b"\r\n")
_TARGETS = [
    *("/api/user", "/api/token", "/api/token/teams", "/getUser", "/getToken", "/exchangeToken", "/openapi.json"),
    *("/health/live", "/health/ready", "/health/startup", "/docs", "/docs/", "/", "*", "/api", "/%ff", "/a\x7f"),
    *("http://localhost/api/user", "/api/user%00", "/api\\user", "/api/users/resolve", "/api/users"),
]
_CLAIMS = ["aud", "iss", "exp", "nbf", "iat", "tid", "oid", "scp", "roles", "ver", "cnf", "sub", "azp", "idtyp", "acct"]
_HEADERS = ["alg", "typ", "kid", "crit", "b64", "jku", "jwk", "x5u", "x5c", "zip", "enc", "cty"]
_NAMES = [
    *("Accept", "Accept-Encoding", "Content-Type", "Content-Length", "Content-Encoding", "Transfer-Encoding", "TE"),
    *("Expect", "Upgrade", "Connection", "Cookie", "Range", "If-Match", "If-Modified-Since", "Origin", "Referer"),
    *("Access-Control-Request-Method", "Access-Control-Request-Headers", "X-Forwarded-For", "X-Forwarded-Proto"),
    *("X-Forwarded-Host", "Forwarded", "X-Request-Id", "traceparent", "tracestate", "Host", "Authorization", "X"),
    *("HTTP2-Settings", "Sec-WebSocket-Key", "Sec-WebSocket-Version", "Proxy-Authorization", "Content-Type"),
]
_VALUES = [
    *(
        b"",
        b" ",
        b"*/*",
        b"chunked",
        b"gzip",
        b"gzip, chunked",
        b"identity",
        b"100-continue",
        b"websocket",
        b"-1",
        b"0",
    ),
    *(b"1", b"99999999999999999999", b"h2c", b"keep-alive, Upgrade", b"localhost", b"http://localhost:3000", b"null"),
    *(b"bytes=0-1", b'"x"', b"application/json", b"text/html; charset=\xff", b"a" * 20_000, b"127.0.0.1", b"::1"),
    b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
]


def _encoded(text: bytes) -> bytes:
    return base64.urlsafe_b64encode(text).rstrip(b"=")


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def _run(examples: int, requests: int, seed: int) -> bool:
    with tempfile.TemporaryDirectory() as directory:
        async with deployed(Path(directory), "sqlite", 1) as deployment, deployment.process() as service:
            await service.ready()
            started = time.monotonic()
            bearer = deployment.bearer(deployment.users[0])["Authorization"]
            trial = await try_document(service.url, bearer, Path(directory), examples, seed)
            print(trial.told, flush=True)
            done = await fuzz(deployment, service.url, requests, seed)
            answers = ", ".join(f"{count} x {name}" for name, count in done.answers.most_common())
            print(f"{requests} random requests: {answers}")
            print(f"broken: {len(done.broken) or 'nothing'}; {time.monotonic() - started:.0f} s altogether")
            for told in done.broken[:20]:
                print(f"  {told}")
    return trial.status == 0 and not done.broken


def main(arguments: Sequence[str]) -> int:
    """Fuzz one process; 0 when no check failed and nothing broke."""
    parser = argparse.ArgumentParser(prog="python -m soak fuzz", description=__doc__)
    parser.add_argument("--examples", type=int, default=500, help="for each operation of the document")
    parser.add_argument("--requests", type=int, default=50_000, help="random ones")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}")
    return 0 if asyncio.run(_run(options.examples, options.requests, seed)) else 1
