"""Every attack of the corpus against `acs-auth serve` in a process of its own, over real sockets, by each door."""

import asyncio
import json
import os
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from h2.connection import H2Connection

from local_azure.entra.directory import RESOLVE_SCOPE, USERS
from local_azure.environment import LocalAzure, Ports
from local_azure.keys import new_rsa_key
from tests.support.attack_corpus import (
    CONTROLS,
    Attack,
    Forger,
    OidcForger,
    attacks_at,
    bearer,
    good,
    http,
    question,
)
from tests.support.oidc_issuer import running_oidc_issuer
from tests.support.service_process import PATIENCE_SECONDS, environment_for, serving, stopped

DOORS = ("entra", "oidc")
in_one_loop = pytest.mark.asyncio(loop_scope="module")
INTERNALS = re.compile(
    r"Traceback|\.py\b|8:acs|(?i:jwt|jose|signature|segment|padding|\bkid\b|exception|hypercorn|quart|werkzeug|python)|"
    r"RSA|[a-z]Error\b|localhost:\d|127\.0\.0\.1"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """The first final answer on a connection, and how many answers came altogether."""

    status: int
    headers: dict[str, str]
    body: bytes
    count: int

    @property
    def error(self) -> str | None:
        """The name of the error; `None` when the HTTP layer answered without a body."""
        if not self.body:
            return None
        found = json.loads(self.body)
        return str(found["error"]) if "error" in found else "none"


@dataclass(slots=True)
class World:
    """The running service, the attacker at each of its doors, and what was seen of both."""

    port: int
    forgers: dict[str, Forger]
    attacker_requests: list[str]
    log: Path

    async def access_line(self, request_id: str) -> dict[str, Any]:
        """The line that the service wrote for this request; it may be written after the answer."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                for line in reversed(self.log.read_text().splitlines()):
                    if request_id in line and '"event": "request"' in line:
                        return dict(json.loads(line))
                await asyncio.sleep(0.01)

    async def send(self, request: bytes) -> Answer:
        """Write the bytes as they are; read until the service closes the connection."""
        return parsed(await self.exchange(request))

    async def exchange(self, request: bytes) -> bytes:
        """What the service writes until it closes the connection."""
        loop = asyncio.get_running_loop()
        received = bytearray()
        with socket.socket() as connection:
            connection.setblocking(False)
            async with asyncio.timeout(PATIENCE_SECONDS):
                await loop.sock_connect(connection, ("127.0.0.1", self.port))
                with suppress(ConnectionError):  # the service may answer and close before it has read everything
                    await loop.sock_sendall(connection, request)
                with suppress(ConnectionError):
                    while piece := await loop.sock_recv(connection, 65536):
                        received += piece
        return bytes(received)

    async def serves_a_good_caller(self, door: str = "entra") -> bool:
        """Whether a good caller of this door gets what is his."""
        return (await self.send(http(good(self.forgers[door])))).status == 200


def parsed(raw: bytes) -> Answer:
    answers = len(re.findall(rb"HTTP/1\.1 [2-5]\d\d ", raw))
    while raw.startswith(b"HTTP/1.1 1"):
        raw = raw.partition(b"\r\n\r\n")[2]
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.lower(): value.strip() for name, _, value in pairs}
    return Answer(int(first.split(" ")[1]), headers, body[: int(headers.get("content-length", "0"))], answers)


@asynccontextmanager
async def attackers_server(azure: LocalAzure, seen: list[str]) -> AsyncIterator[str]:
    """A server that offers keys over TLS that the service trusts, and notes who asks."""

    async def note(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.json_response({"keys": []})

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", note)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=azure.authority.server_context())
    await site.start()
    try:
        yield f"https://localhost:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(
    signing_keys: list[rsa.RSAPrivateKey], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[World]:
    """One service for the whole corpus. At the end, its log is looked through."""
    directory = tmp_path_factory.mktemp("attacks")
    shutil.copytree(Path(os.environ["SSL_CERT_FILE"]).parent, directory / "local-azure")
    personal, first, second, strangers = signing_keys
    keys = iter([personal, first, second, first])
    seen: list[str] = []
    async with (
        LocalAzure(directory / "local-azure", Ports(0, 0, 0, 0), new_key=lambda: next(keys)) as azure,
        running_oidc_issuer(directory / "local-azure", new_rsa_key(), {}) as oidc,
        attackers_server(azure, seen) as attacker_url,
    ):
        entra_key = azure.entra.keys.current
        # It publishes its key under the id of Entra ID's as well, and says that it is Entra ID's.
        oidc.key_set = [
            oidc.published(issuer=f"{azure.entra.url}/{{tenantid}}/v2.0", kid=kid)
            for kid in (oidc.key_id, entra_key.kid)
        ]
        environment = {
            **environment_for(azure, directory),
            "REQUEST_DEADLINE_SECONDS": "10",
            "OIDC_ISSUER": oidc.issuer,
            "OIDC_AUDIENCE": OidcForger.audience,
            "OIDC_REQUIRED_SCOPE": OidcForger.scope,
            "OIDC_SUBJECT_CLAIM": "oid",
            "ENTRA_RESOLVE_SCOPE": RESOLVE_SCOPE,
        }
        async with serving(environment) as service:
            world = World(int(environment["PORT"]), {}, seen, service.log)
            by_entra = Forger(azure, strangers, attacker_url, "")
            by_oidc = OidcForger(azure, strangers, attacker_url, "", oidc, other=by_entra)
            for forger in (replace(by_entra, other=by_oidc), by_oidc):
                for user in ("alex", "guest"):
                    created = await world.send(http(bearer(forger.token(user)), method="POST"))
                    assert created.status == 201
                issued = await world.send(http(good(forger), target="/api/token"))
                world.forgers[forger.door] = replace(forger, acs_token=json.loads(issued.body)["token"])
            yield world
            assert azure.acs.faults.counts["revoke_access_tokens"] == 0, "An attack signed somebody out."
            service.process.terminate()
            _, written = await stopped(service)
    assert '"status": 201' in written, "the log was not read"
    for unwanted in ("Traceback", "unexpected error", '"level": "error"', "eyJ", "8:acs", "access_token="):
        assert unwanted not in written, unwanted


@in_one_loop
@pytest.mark.parametrize(
    ("door", "attack"),
    [pytest.param(door, attack, id=f"{door}, {attack.name}") for door in DOORS for attack in attacks_at(door)],
)
async def test_an_attack_gets_the_answer_it_must_get(
    world: World, door: str, attack: Attack, record_property: Callable[[str, object], None]
) -> None:
    request = attack.request(world.forgers[door])
    answer = await world.send(request)
    let_in = answer.status < 400 or answer.error == "identity_not_found"
    allowed = attack.status < 400 or attack.error == "identity_not_found"
    record_property("attack", f"{door} {('allowed by its rules' if allowed else 'accepted') if let_in else 'refused'}")
    assert (answer.status, answer.error) == (attack.status, attack.error)
    assert answer.count == 1
    if answer.status == 200:
        return
    if answer.status in (401, 403) or answer.error == "invalid_request":
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["cache-control"] == "no-store"
    told = "\n".join([*answer.headers.values(), answer.body.decode()])
    assert not INTERNALS.search(told), told
    sent = re.findall(r"[A-Za-z0-9_-]{40,}", request.decode("latin-1"))
    assert not [part for part in sent if part in told]
    assert world.attacker_requests == []
    if attack.reason == "missing":
        assert "error" not in answer.headers["www-authenticate"]  # RFC 6750, section 3.1
    if attack.reason is not None:
        line = await world.access_line(answer.headers["x-request-id"])
        assert (line["reason"], line["error"]) == (attack.reason, attack.error or "invalid_token")
        assert json.loads(answer.body or "{}").get("reason") == ("expired" if attack.reason == "expired" else None)
    assert await world.serves_a_good_caller(door)


@in_one_loop
@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("control", CONTROLS)
async def test_what_is_good_is_accepted(
    world: World, control: str, door: str, record_property: Callable[[str, object], None]
) -> None:
    answer = await world.send(CONTROLS[control](world.forgers[door]))
    record_property("control", f"{door} {'accepted' if answer.status == 200 else 'refused'}")
    assert answer.status == 200
    assert set(json.loads(answer.body)) == {"acsUserIdentity"}


@in_one_loop
@pytest.mark.parametrize("user", ["alex", "guest"])
async def test_who_may_ask_is_told_of_the_own_tenant_only(world: World, user: str) -> None:
    token = world.forgers["entra"].may_resolve(user)
    asked = [USERS[name].object_id for name in ("nestor", "megan", "alex")]
    answer = await world.send(question(bearer(token), body=json.dumps({"userIds": asked}).encode()))
    assert answer.status == 200
    assert [each["userId"] for each in json.loads(answer.body)["users"]] == asked[2:]


@in_one_loop
async def test_no_scope_of_the_other_issuer_lets_anybody_ask_for_colleagues(world: World) -> None:
    token = world.forgers["oidc"].may_resolve()
    answer = await world.send(question(bearer(token)))
    assert (answer.status, answer.error) == (403, "insufficient_scope")
    assert (await world.send(http(bearer(token)))).status == 200  # for all else it is good


@in_one_loop
@pytest.mark.parametrize("how", ["X-HTTP-Method-Override: DELETE", "X-Method-Override: DELETE"])
async def test_nobody_is_signed_out_by_a_get_that_says_it_is_a_delete(world: World, how: str) -> None:
    for target in ("/api/token", "/api/token?_method=DELETE"):
        answer = await world.send(http(good(world.forgers["entra"]), how, target=target))
        assert answer.status == 201  # the world looks at its end whether anything was revoked


@in_one_loop
@pytest.mark.parametrize("target", ["?api/user", "http://evil.example"])
async def test_an_address_without_a_path_is_the_front_page_and_repeats_no_host(world: World, target: str) -> None:
    answer = await world.send(http(good(world.forgers["entra"]), target=target))
    assert answer.status == 200
    assert answer.headers["content-type"].startswith("text/html")
    assert "evil.example" not in answer.body.decode()


def test_the_corpus_is_large_and_names_each_attack_once() -> None:
    for door in DOORS:
        names = [attack.name for attack in attacks_at(door)]
        assert len(names) == len(set(names)) >= 400


@in_one_loop
async def test_there_is_no_http2_without_tls(world: World) -> None:
    preface = H2Connection()
    preface.initiate_connection()
    answer = await world.exchange(preface.data_to_send())
    assert answer.startswith(b"HTTP/1.1 4")
    assert await world.serves_a_good_caller()


@in_one_loop
async def test_an_upgrade_to_http2_is_ignored_and_the_request_is_guarded(world: World) -> None:
    settings = (H2Connection().initiate_upgrade_connection() or b"").decode()
    request = http("Upgrade: h2c", f"HTTP2-Settings: {settings}")
    answer = await world.send(request.replace(b"Connection: close", b"Connection: close, Upgrade, HTTP2-Settings"))
    assert (answer.status, answer.error) == (401, "invalid_token")
    assert await world.serves_a_good_caller()
