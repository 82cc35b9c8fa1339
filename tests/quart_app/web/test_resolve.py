"""`POST /api/users/resolve`, over the wire: whose identities a caller is told, and who may ask at all."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from quart import Quart, Response
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import OTHER_TENANT, USERS
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.app import create_app
from quart_app.auth.access_tokens import AccessTokenValidator
from quart_app.auth.caller import Caller
from quart_app.auth.guard import Guard
from quart_app.settings import DoorName, InvalidSettings, load_settings
from quart_app.web.errors import register_error_handlers
from quart_app.web.json_answers import no_content
from quart_app.web.routes.users import WHAT_TO_SEND
from storage.mapping import UserKey
from tests.support.answers import error_of
from tests.support.replicas import replica
from tests.support.running_service import served

PATH = "/api/users/resolve"
SCOPE = "resolve_users"
BOTH = f"access_as_user {SCOPE}"
ALEX, MEGAN, ZOE, NESTOR = (USERS[name].object_id for name in ("alex", "megan", "zoe", "nestor"))
NOBODY = "99999999-0000-4000-8000-000000000000"


@pytest.fixture(params=["sqlite", "cosmos"])
def environment(request: pytest.FixtureRequest, configured: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    configured.setenv("STORAGE_BACKEND", request.param)
    configured.setenv("ENTRA_RESOLVE_SCOPE", SCOPE)
    configured.setenv("ENTRA_ALLOWED_TENANTS", f"{USERS['alex'].tenant_id},{OTHER_TENANT.tenant_id}")
    return configured


@pytest.fixture
def in_sqlite(configured: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Where the store makes no difference."""
    configured.setenv("ENTRA_RESOLVE_SCOPE", SCOPE)
    return configured


@pytest.fixture
async def client(environment: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    async with replica() as client:
        yield client


@pytest.fixture
async def one_store(in_sqlite: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    async with replica() as client:
        yield client


def bearer(azure: LocalAzure, name: str = "alex", scope: str = BOTH) -> dict[str, str]:
    return {"Authorization": f"Bearer {azure.entra.access_token(name, scope=scope)}"}


async def created(client: Client, azure: LocalAzure, name: str) -> str:
    answer = await client.post("/api/user", headers=bearer(azure, name))
    return str((await answer.get_json())["acsUserIdentity"])


async def resolved(client: Client, headers: dict[str, str], *object_ids: str) -> list[dict[str, str]]:
    answer = await client.post(PATH, headers=headers, json={"userIds": list(object_ids)})
    assert answer.status_code == 200, await answer.get_data()
    assert answer.headers["Cache-Control"] == "no-store"
    body = await answer.get_json()
    assert set(body) == {"users"}
    return list(body["users"])


def told(**identities: str) -> list[dict[str, str]]:
    return [{"userId": USERS[name].object_id, "acsUserIdentity": identity} for name, identity in identities.items()]


async def test_those_who_have_an_identity_are_told_in_the_order_of_the_question(
    client: Client, local_azure: LocalAzure
) -> None:
    alex, megan = await created(client, local_azure, "alex"), await created(client, local_azure, "megan")
    asked = (MEGAN, NOBODY, ZOE, ALEX)
    async with replica() as other:
        for each in (client, other):
            assert await resolved(each, bearer(local_azure), *asked) == told(megan=megan, alex=alex)
    assert await resolved(client, bearer(local_azure, "zoe"), ALEX) == told(alex=alex)
    assert await resolved(client, bearer(local_azure), NOBODY, ZOE) == []
    assert await resolved(client, bearer(local_azure)) == []


async def test_spellings_of_one_id_are_one_user(client: Client, local_azure: LocalAzure) -> None:
    alex = await created(client, local_azure, "alex")
    assert await resolved(client, bearer(local_azure), ALEX.upper(), ALEX, ALEX.title()) == told(alex=alex)


async def test_nobody_is_told_of_another_tenants_users(client: Client, local_azure: LocalAzure) -> None:
    nestor, alex = await created(client, local_azure, "nestor"), await created(client, local_azure, "alex")
    assert await resolved(client, bearer(local_azure, "alex"), NESTOR, ALEX) == told(alex=alex)
    assert await resolved(client, bearer(local_azure, "nestor"), NESTOR, ALEX) == told(nestor=nestor)


async def test_whose_identity_is_deleted_or_is_being_deleted_is_answered_as_unknown(
    client: Client, local_azure: LocalAzure
) -> None:
    await created(client, local_azure, "alex")
    await created(client, local_azure, "megan")
    assert (await client.delete("/api/user", headers=bearer(local_azure, "alex"))).status_code == 204
    local_azure.acs.faults.script("delete_identity", Fault(status=400, times=None))
    assert (await client.delete("/api/user", headers=bearer(local_azure, "megan"))).status_code >= 500
    async with replica() as other:
        for each in (client, other):
            assert await resolved(each, bearer(local_azure, "zoe"), ALEX, MEGAN, NOBODY) == []


async def test_a_hundred_users_at_once_are_found_and_more_are_refused(client: Client, local_azure: LocalAzure) -> None:
    megan = await created(client, local_azure, "megan")
    crowd = [f"99999999-0000-4000-8000-{number:012d}" for number in range(99)]
    assert await resolved(client, bearer(local_azure), *crowd, MEGAN) == told(megan=megan)
    answer = await client.post(PATH, headers=bearer(local_azure), json={"userIds": [*crowd, MEGAN, ALEX]})
    assert await error_of(answer) == (400, "invalid_body")


@pytest.mark.parametrize("fault", [Fault(status=503, times=None), Fault(status=429, times=None)])
async def test_a_read_that_fails_is_the_failure_of_all_and_never_an_absence(
    in_sqlite: pytest.MonkeyPatch, local_azure: LocalAzure, fault: Fault
) -> None:
    in_sqlite.setenv("STORAGE_BACKEND", "cosmos")
    async with replica() as client:
        alex, megan = await created(client, local_azure, "alex"), await created(client, local_azure, "megan")
        local_azure.cosmos.faults.script("read_item", fault)
        answer = await client.post(PATH, headers=bearer(local_azure), json={"userIds": [ALEX, NOBODY, MEGAN]})
        assert await error_of(answer) == (503, "service_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        local_azure.cosmos.faults.clear()
        assert await resolved(client, bearer(local_azure), ALEX, MEGAN) == told(alex=alex, megan=megan)


async def test_a_mapping_that_cannot_be_read_is_no_absence_either(
    one_store: Client, local_azure: LocalAzure, tmp_path: Path
) -> None:
    alex = await created(one_store, local_azure, "alex")
    await created(one_store, local_azure, "megan")
    with closing(sqlite3.connect(tmp_path / "mappings.sqlite", isolation_level=None)) as database:
        database.execute("UPDATE mappings SET acs_user_id = 'nonsense' WHERE subject = ?", (MEGAN,))
    answer = await one_store.post(PATH, headers=bearer(local_azure), json={"userIds": [ALEX, MEGAN]})
    assert await error_of(answer) == (502, "unexpected_upstream_answer")
    assert await resolved(one_store, bearer(local_azure), ALEX) == told(alex=alex)


async def test_without_the_setting_there_is_no_such_route(
    configured: pytest.MonkeyPatch, local_azure: LocalAzure
) -> None:
    async with replica() as client:
        for headers in ({}, bearer(local_azure)):
            refused = await client.post(PATH, headers=headers, json={"userIds": []})
            assert await error_of(refused) == await error_of(await client.post("/api/users/nothing", headers=headers))
            assert refused.status_code == 404
        document = await (await client.get("/openapi.json")).get_json()
        assert PATH not in document["paths"]
        assert SCOPE not in json.dumps(document)
        assert (await client.get(f"/.well-known/oauth-protected-resource{PATH}")).status_code == 404


async def test_a_token_without_both_scopes_is_refused_with_the_one_that_is_missing(
    one_store: Client, local_azure: LocalAzure
) -> None:
    await created(one_store, local_azure, "alex")
    for scope, missing in {
        "access_as_user": SCOPE,
        "access_as_user Resolve_Users resolve_users.all": SCOPE,
        SCOPE: "access_as_user",
        "openid": "access_as_user",
    }.items():
        answer = await one_store.post(PATH, headers=bearer(local_azure, scope=scope), json={"userIds": [ALEX]})
        assert await error_of(answer) == (403, "insufficient_scope")
        assert answer.headers["WWW-Authenticate"].startswith('Bearer error="insufficient_scope", ')
        assert answer.headers["WWW-Authenticate"].endswith(f', scope="{missing}"')
        assert missing in (await answer.get_json())["message"]


async def test_the_scope_permits_nothing_but_this_route(one_store: Client, local_azure: LocalAzure) -> None:
    headers = bearer(local_azure, scope=SCOPE)
    assert await error_of(await one_store.get("/api/user", headers=headers)) == (403, "insufficient_scope")


async def test_an_application_may_not_ask(one_store: Client, local_azure: LocalAzure) -> None:
    token = local_azure.entra.app_only_token(roles=[SCOPE, "access_as_user"])
    answer = await one_store.post(PATH, headers={"Authorization": f"Bearer {token}"}, json={"userIds": [ALEX]})
    assert await error_of(answer) == (401, "invalid_token")


def listing(*object_ids: Any) -> bytes:
    return json.dumps({"userIds": object_ids}).encode()


BAD_BODIES = {
    "nothing": b"",
    "no JSON": b"userIds",
    "a list": b"[]",
    "null": b"null",
    "no users": b"{}",
    "users that are null": b'{"userIds": null}',
    "users that are an object": b'{"userIds": {}}',
    "one user": json.dumps({"userIds": ALEX}).encode(),
    "a number": listing(1),
    "a list in a list": listing([ALEX]),
    "no GUID": listing("alex"),
    "an empty id": listing(""),
    "a user name": listing("alex@contoso.localhost"),
    "a GUID in braces": listing(f"{{{ALEX}}}"),
    "a GUID without hyphens": listing(ALEX.replace("-", "")),
    "a GUID and a line break": listing(f"{ALEX}\n"),
    "a GUID and a NUL": listing(f"{ALEX}\0"),
    "a GUID in full-width digits": listing("\uff10" + ALEX[1:]),
    "another tenant before it": listing(f"{OTHER_TENANT.tenant_id}:{NESTOR}"),
    "a path": listing(f"../{ALEX}"),
    "a good one and a bad one": listing(ALEX, "x"),
    "a member besides": json.dumps({"userIds": [ALEX], "tenantId": OTHER_TENANT.tenant_id}).encode(),
    "the member twice": f'{{"userIds": [], "userIds": ["{ALEX}"]}}'.encode(),
    "another spelling of the member": json.dumps({"userids": [ALEX]}).encode(),
    "UTF-16": json.dumps({"userIds": [ALEX]}).encode("utf-16"),
    "a mark before it": b"\xef\xbb\xbf" + listing(ALEX),
    "deep nesting": b'{"userIds": ' + b"[" * 5_000,
    "NaN": b'{"userIds": [NaN]}',
    "a number of 5000 digits": b'{"userIds": [' + b"9" * 5_000 + b"]}",
    "a lone surrogate": b'{"userIds": ["\\ud800"]}',
    "two documents": listing(ALEX) * 2,
}


async def test_a_body_of_another_form_is_refused_and_not_repeated(one_store: Client, local_azure: LocalAzure) -> None:
    headers = {**bearer(local_azure), "Content-Type": "application/json"}
    for name, body in BAD_BODIES.items():
        answer = await one_store.post(PATH, headers=headers, data=body)
        assert await error_of(answer) == (400, "invalid_body"), name
        assert (await answer.get_json())["message"] == WHAT_TO_SEND, name


async def test_only_what_is_said_to_be_json_is_read(one_store: Client, local_azure: LocalAzure) -> None:
    for media_type in ("application/json", "application/json; charset=utf-8", "Application/JSON"):
        headers = {**bearer(local_azure), "Content-Type": media_type}
        assert (await one_store.post(PATH, headers=headers, data=listing(ALEX))).status_code == 200
    for media_type in (
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json-patch+json",
    ):
        headers = {**bearer(local_azure), "Content-Type": media_type}
        answer = await one_store.post(PATH, headers=headers, data=listing(ALEX))
        assert await error_of(answer) == (415, "unsupported_media_type"), media_type


async def test_a_body_that_is_too_large_is_refused(one_store: Client, local_azure: LocalAzure) -> None:
    large = listing(ALEX) + b" " * 16 * 1024
    for framing in ({"Transfer-Encoding": "chunked"}, {"Content-Length": str(len(large))}):
        headers = {**bearer(local_azure), **framing, "Content-Type": "application/json"}
        answer = await one_store.post(PATH, headers=headers, data=large)
        assert await error_of(answer) == (413, "request_entity_too_large")


@pytest.fixture
async def app(in_sqlite: pytest.MonkeyPatch) -> AsyncIterator[Quart]:
    async with create_app(load_settings(None)) as app:
        yield app


async def begun(address: str, headers: dict[str, str], length: int) -> tuple[int, str]:
    """What a request is answered whose body is announced and does not come."""
    host, port = address.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    lines = [
        f"POST {PATH} HTTP/1.1",
        f"Host: {host}",
        "Content-Type: application/json",
        f"Content-Length: {length}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    writer.write("\r\n".join([*lines, "", '{"userIds": ']).encode())
    answer = (await reader.read()).decode()  # until the service ends the connection
    writer.close()
    return int(answer.split(" ", 2)[1]), json.loads(answer.partition("\r\n\r\n")[2])["error"]


async def test_a_body_that_never_comes_is_waited_for_briefly_and_only_of_who_may_ask(
    app: Quart, local_azure: LocalAzure
) -> None:
    app.config["BODY_TIMEOUT"] = 3600
    async with served(app) as address:
        assert await begun(address, {}, 100) == (401, "invalid_token")
        assert await begun(address, bearer(local_azure, scope="access_as_user"), 100) == (403, "insufficient_scope")
        app.config["BODY_TIMEOUT"] = 0.05
        assert await begun(address, bearer(local_azure), 100) == (408, "request_timeout")


async def test_each_user_who_is_asked_about_counts_as_a_request(
    in_sqlite: pytest.MonkeyPatch, local_azure: LocalAzure
) -> None:
    in_sqlite.setenv("RATE_LIMIT_REQUESTS_PER_MINUTE", "10")
    crowd = [f"99999999-0000-4000-8000-{number:012d}" for number in range(100)]
    async with replica() as client:
        assert await resolved(client, bearer(local_azure), *crowd[:6]) == []
        answer = await client.post(PATH, headers=bearer(local_azure), json={"userIds": crowd[:5]})
        assert await error_of(answer) == (429, "too_many_requests")
        assert int(answer.headers["Retry-After"]) >= 1
        assert await resolved(client, bearer(local_azure), crowd[0], crowd[0].upper()) == []
        # As many as are allowed in a minute are a minute's worth: who waits that long is served.
        assert await resolved(client, bearer(local_azure, "megan"), *crowd) == []
        answer = await client.get("/api/user", headers=bearer(local_azure, "megan"))
        assert await error_of(answer) == (429, "too_many_requests")


async def test_a_page_of_an_allowed_origin_may_ask(in_sqlite: pytest.MonkeyPatch, local_azure: LocalAzure) -> None:
    origin = "https://app.example.com"
    in_sqlite.setenv("CORS_ALLOWED_ORIGINS", origin)
    async with replica() as client:
        preflight = await client.options(
            PATH,
            headers={
                "Origin": origin,
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            },
        )
        assert preflight.status_code == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == origin
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert "content-type" in preflight.headers["Access-Control-Allow-Headers"].lower()
        asked = {"Origin": origin, **bearer(local_azure)}
        answer = await client.post(PATH, headers=asked, json={"userIds": [ALEX]})
        assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, origin)


async def test_the_metadata_names_the_scope_where_it_is_of_use(one_store: Client, local_azure: LocalAzure) -> None:
    async def supported(path: str) -> list[str]:
        document = await (await one_store.get(f"/.well-known/oauth-protected-resource{path}")).get_json()
        return list(document["scopes_supported"])

    usual, besides = (f"api://{local_azure.service_environment()['ENTRA_CLIENT_ID']}/{name}" for name in BOTH.split())
    assert await supported("") == await supported(PATH) == [usual, besides]
    assert await supported("/api/user") == [usual]


async def test_the_document_describes_the_body_and_both_scopes(one_store: Client) -> None:
    document = await (await one_store.get("/openapi.json")).get_json()
    operation = document["paths"][PATH]["post"]
    assert operation["requestBody"]["required"]
    assert list(operation["requestBody"]["content"]) == ["application/json"]
    (usual,) = document["security"][0].values()
    (both,) = operation["security"][0].values()
    assert both[:-1] == usual
    assert both[-1].endswith(f"/{SCOPE}")
    offered = document["components"]["securitySchemes"]["entra"]["flows"]["authorizationCode"]["scopes"]
    assert list(offered) == both


async def test_other_methods_are_not_taken(one_store: Client, local_azure: LocalAzure) -> None:
    answer = await one_store.get(PATH, headers=bearer(local_azure))
    assert await error_of(answer) == (405, "method_not_allowed")
    assert set(answer.headers["Allow"].split(", ")) == {"OPTIONS", "POST"}


async def test_no_id_is_told_to_the_log(
    one_store: Client, local_azure: LocalAzure, caplog: pytest.LogCaptureFixture
) -> None:
    identity = await created(one_store, local_azure, "alex")
    await resolved(one_store, bearer(local_azure, "megan"), ALEX, NOBODY)
    assert '"route": "/api/users/resolve"' in caplog.text or PATH in caplog.text
    for told_nowhere in (ALEX, NOBODY, identity):
        assert told_nowhere not in caplog.text


async def test_settings_with_which_nobody_could_ask_are_refused_at_the_start(in_sqlite: pytest.MonkeyPatch) -> None:
    in_sqlite.setenv("STORAGE_BACKEND", "graph")
    with pytest.raises(InvalidSettings, match="ENTRA_RESOLVE_SCOPE works only with STORAGE_BACKEND=cosmos or sqlite"):
        load_settings(None)
    in_sqlite.setenv("STORAGE_BACKEND", "sqlite")
    in_sqlite.setenv("ENTRA_RESOLVE_SCOPE", "access_as_user")
    with pytest.raises(InvalidSettings, match="ENTRA_RESOLVE_SCOPE must be another scope than ENTRA_REQUIRED_SCOPE"):
        load_settings(None)
    in_sqlite.setenv("ENTRA_RESOLVE_SCOPE", f"api://acs-auth/{SCOPE}")
    with pytest.raises(InvalidSettings, match="ENTRA_RESOLVE_SCOPE: must be only the scope's name"):
        load_settings(None)
    in_sqlite.setenv("ENTRA_RESOLVE_SCOPE", SCOPE)
    for name in ("ENTRA_TENANT_ID", "ENTRA_CLIENT_ID", "ENTRA_CLIENT_SECRET", "ENTRA_AUTHORITY_HOST"):
        in_sqlite.delenv(name)
    for name in ("ISSUER", "AUDIENCE", "REQUIRED_SCOPE"):
        in_sqlite.setenv(f"OIDC_{name}", "https://issuer.example.com")
    in_sqlite.delenv("TEAMS_CLIENT_IDS")
    with pytest.raises(InvalidSettings, match="ENTRA_RESOLVE_SCOPE"):
        load_settings(None)


class OneCaller(AccessTokenValidator):
    """Takes every token for that of a caller who came in by this door."""

    def __init__(self, door: DoorName) -> None:
        self._door = door

    async def validate(self, token: str) -> Caller:
        return Caller(UserKey("issuer", ALEX), token, 0, self._door, scopes=frozenset({SCOPE}))


@pytest.mark.parametrize(("door", "status"), [(DoorName.ENTRA, 204), (DoorName.OIDC, 403)])
async def test_a_scope_of_that_name_from_another_issuer_permits_nothing(door: DoorName, status: int) -> None:
    app = Quart(__name__)
    register_error_handlers(app, "https://login.example", told_more=False)
    guard = Guard(OneCaller(door), 60)

    @app.post(PATH)
    @guard.authenticated_with(SCOPE, DoorName.ENTRA)
    async def view(caller: Caller) -> Response:
        return no_content()

    assert (await app.test_client().post(PATH, headers={"Authorization": "Bearer x"})).status_code == status
