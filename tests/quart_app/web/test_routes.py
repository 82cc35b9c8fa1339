"""The HTTP contract, route by route, over the real SDKs against the stand-ins."""

import asyncio
import json
from http import HTTPStatus

import jsonschema
import pytest
from openapi_spec_validator import validate
from quart import Quart, Response
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import BROWSER
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.app import create_app
from quart_app.auth.guard import ACCESS
from quart_app.settings import load_settings
from tests.quart_app.conftest import Bearer
from tests.support.answers import error_of

AUTHENTICATED = [
    ("GET", "/api/user"),
    ("POST", "/api/user"),
    ("DELETE", "/api/user"),
    ("GET", "/api/token"),
    ("DELETE", "/api/token"),
    ("GET", "/api/token/teams"),
    ("GET", "/getUser"),
    ("POST", "/getUser"),
    ("GET", "/getToken"),
    ("GET", "/exchangeToken"),
]


async def send(client: Client, method: str, path: str, headers: dict[str, str] | None = None) -> Response:
    answer: Response = await getattr(client, method.lower())(path, headers=headers)
    return answer


async def text_of(answer: Response) -> str:
    return str(await answer.get_data(as_text=True))


async def test_a_user_gets_one_identity_and_keeps_it(client: Client, bearer: Bearer, local_azure: LocalAzure) -> None:
    created = await client.post("/api/user", headers=bearer("alex"))
    again = await client.post("/api/user", headers=bearer("alex"))
    read = await client.get("/api/user", headers=bearer("alex"))
    assert (created.status_code, again.status_code, read.status_code) == (201, 200, 200)
    identity = (await created.get_json())["acsUserIdentity"]
    assert identity == (await again.get_json())["acsUserIdentity"] == (await read.get_json())["acsUserIdentity"]
    assert local_azure.acs.live_identities() == [identity]


async def test_a_token_is_for_the_callers_identity(client: Client, bearer: Bearer, local_azure: LocalAzure) -> None:
    created = await client.post("/api/user", headers=bearer("alex"))
    identity = (await created.get_json())["acsUserIdentity"]
    answer = await client.get("/api/token", headers=bearer("alex"))
    assert answer.status_code == 201
    body = await answer.get_json()
    assert set(body) == {"token", "expiresOn", "user"}
    assert body["user"] == {"communicationUserId": identity}
    claims = local_azure.acs.verify_token(body["token"])
    assert claims is not None
    assert f"8:{claims['skypeid']}" == identity
    assert claims["acsScope"] == "chat,voip"


async def test_two_users_never_share_an_identity(client: Client, bearer: Bearer) -> None:
    first = await client.post("/api/user", headers=bearer("alex"))
    second = await client.post("/api/user", headers=bearer("megan"))
    assert (await first.get_json())["acsUserIdentity"] != (await second.get_json())["acsUserIdentity"]


async def test_without_a_mapping_there_is_no_user_and_no_token(client: Client, bearer: Bearer) -> None:
    for path in ("/api/user", "/api/token", "/getToken"):
        assert await error_of(await client.get(path, headers=bearer("alex"))) == (404, "identity_not_found")


async def test_deleting_leaves_nothing_and_may_be_repeated(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
    assert await error_of(await client.get("/api/user", headers=bearer("alex"))) == (404, "identity_not_found")
    assert await error_of(await client.get("/api/token", headers=bearer("alex"))) == (404, "identity_not_found")
    assert local_azure.acs.live_identities() == []
    assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204


async def test_a_user_who_comes_back_gets_a_new_identity(client: Client, bearer: Bearer) -> None:
    first = await client.post("/api/user", headers=bearer("alex"))
    await client.delete("/api/user", headers=bearer("alex"))
    second = await client.post("/api/user", headers=bearer("alex"))
    assert second.status_code == 201
    assert (await first.get_json())["acsUserIdentity"] != (await second.get_json())["acsUserIdentity"]


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_the_older_get_user_creates_an_identity_too(client: Client, bearer: Bearer, method: str) -> None:
    first = await send(client, method, "/getUser", bearer("alex"))
    second = await send(client, method, "/getUser", bearer("alex"))
    read = await client.get("/api/user", headers=bearer("alex"))
    assert (first.status_code, second.status_code) == (201, 200)
    assert await first.get_json() == await second.get_json() == await read.get_json()
    token = await client.get("/getToken", headers=bearer("alex"))
    assert token.status_code == 201
    assert set(await token.get_json()) == {"token", "expiresOn", "user"}


async def test_two_hundred_simultaneous_requests_of_a_new_user_give_one_identity(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    header = bearer("alex")
    answers = await asyncio.gather(*(client.post("/api/user", headers=header) for _ in range(200)))
    identities = {(await answer.get_json())["acsUserIdentity"] for answer in answers}
    assert sorted(answer.status_code for answer in answers) == [200] * 199 + [201]
    assert local_azure.acs.live_identities() == list(identities)


@pytest.mark.parametrize("path", ["/api/token/teams", "/exchangeToken"])
async def test_the_callers_teams_token_is_exchanged(
    client: Client, bearer: Bearer, local_azure: LocalAzure, path: str
) -> None:
    teams = {"teams-user-aad-token": local_azure.entra.teams_token("alex")}
    answer = await client.get(path, headers={**bearer("alex"), **teams})
    assert answer.status_code == 201
    assert set(await answer.get_json()) == {"token", "expiresOn"}


async def test_a_teams_token_is_refused_with_the_part_that_is_wrong(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    entra = local_azure.entra
    wrong = {
        (400, "teams_token_missing"): None,
        (401, "teams_token_token"): "garbage",
        (401, "teams_token_audience"): entra.access_token("alex"),
        (403, "teams_token_user"): entra.teams_token("megan"),
        (400, "teams_token_client"): entra.teams_token("alex", client=BROWSER),
    }
    for expected, token in wrong.items():
        teams = {"teams-user-aad-token": token} if token else {}
        answer = await client.get("/api/token/teams", headers={**bearer("alex"), **teams})
        assert await error_of(answer) == expected
    assert local_azure.acs.faults.counts["exchange_teams_token"] == 0


async def test_a_teams_token_that_acs_refuses_is_told_so(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    refusal = {"error": {"code": "InvalidAccessToken", "message": "Provided access token is not valid."}}
    local_azure.acs.faults.script("exchange_teams_token", Fault(status=401, body=refusal))
    teams = {"teams-user-aad-token": local_azure.entra.teams_token("alex")}
    answer = await client.get("/api/token/teams", headers={**bearer("alex"), **teams})
    assert await error_of(answer) == (401, "teams_token_token")


async def test_a_mapping_of_another_resource_is_a_conflict_with_the_remedy(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    refusal = {"error": {"code": "IdentityNotOwned", "message": "Provided identity doesn't belong to the resource."}}
    await client.post("/api/user", headers=bearer("alex"))
    local_azure.acs.faults.script("issue_access_token", Fault(status=401, body=refusal, times=None))
    answer = await client.get("/api/token", headers=bearer("alex"))
    assert await error_of(answer) == (409, "identity_resource_mismatch")
    assert "DELETE /api/user" in (await answer.get_json())["message"]
    local_azure.acs.faults.script("delete_identity", Fault(status=401, body=refusal, times=None))
    assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
    assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201


async def test_an_identity_that_acs_forgot_is_a_conflict_with_the_remedy(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    created = await client.post("/api/user", headers=bearer("alex"))
    local_azure.acs.forget((await created.get_json())["acsUserIdentity"])
    answer = await client.get("/api/token", headers=bearer("alex"))
    assert await error_of(answer) in {(409, "identity_gone"), (409, "identity_resource_mismatch")}
    assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
    assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
    assert (await client.get("/api/token", headers=bearer("alex"))).status_code == 201


async def test_an_acs_outage_is_answered_with_when_to_come_back(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    local_azure.acs.faults.script("create_identity", Fault(status=503, times=None))
    answer = await client.post("/api/user", headers=bearer("alex"))
    assert await error_of(answer) == (503, "service_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    local_azure.acs.faults.clear()
    assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201


async def test_a_refused_access_key_is_the_operators_problem(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    local_azure.acs.rotate_access_key()
    answer = await client.post("/api/user", headers=bearer("alex"))
    assert await error_of(answer) == (502, "upstream_credentials_rejected")


async def test_every_route_is_authenticated_or_explicitly_public(app: Quart) -> None:
    guarded = set()
    for rule in app.url_map.iter_rules():
        access = getattr(app.view_functions[rule.endpoint], ACCESS, None)
        assert access in ("authenticated", "public"), rule.rule
        if access == "authenticated":
            guarded |= {(method, rule.rule) for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}}
    assert guarded == set(AUTHENTICATED)


@pytest.mark.parametrize(("method", "path"), AUTHENTICATED)
async def test_no_authenticated_route_answers_without_a_token(
    client: Client, local_azure: LocalAzure, method: str, path: str
) -> None:
    answer = await send(client, method, path)
    assert await error_of(answer) == (401, "invalid_token")
    metadata = f"http://localhost/.well-known/oauth-protected-resource{path}"
    assert answer.headers["WWW-Authenticate"] == f'Bearer resource_metadata="{metadata}"'
    assert answer.headers["Cache-Control"] == "no-store"
    assert sum(local_azure.acs.faults.counts.values()) == 0


@pytest.mark.parametrize(("method", "path"), AUTHENTICATED)
async def test_a_token_without_the_scope_is_forbidden(
    client: Client, local_azure: LocalAzure, method: str, path: str
) -> None:
    token = local_azure.entra.access_token("alex", scope="other_scope")
    answer = await send(client, method, path, {"Authorization": f"Bearer {token}"})
    assert await error_of(answer) == (403, "insufficient_scope")
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"]
    assert 'scope="access_as_user"' in answer.headers["WWW-Authenticate"]


async def test_unknown_routes_and_methods_use_the_error_model(client: Client) -> None:
    assert await error_of(await client.get("/api/nothing")) == (404, "not_found")
    assert await error_of(await client.get("/docs/../secret")) == (404, "not_found")
    answer = await client.put("/api/user")
    assert await error_of(answer) == (405, "method_not_allowed")
    assert "POST" in answer.headers["Allow"]


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_is_ignored_and_one_that_announces_to_be_large_is_refused(
    client: Client, bearer: Bearer, *, chunked: bool
) -> None:
    async def post(body: bytes) -> Response:
        framing = {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
        return await client.post("/api/user", headers={**bearer("alex"), **framing}, data=body)

    assert (await post(b"{}")).status_code == 201
    large = await post(b"x" * (16 * 1024 + 1))
    if chunked:
        assert large.status_code == 200  # nothing announces it, and nothing reads it
    else:
        assert await error_of(large) == (413, "request_entity_too_large")


async def test_a_well_formed_request_id_is_kept_and_any_other_replaced(client: Client) -> None:
    kept = await client.get("/health/live", headers={"X-Request-Id": "abc-123.DEF_456"})
    assert kept.headers["X-Request-Id"] == "abc-123.DEF_456"
    for given in ("short", "x" * 65, "with space here", "<script>alert"):
        replaced = await client.get("/health/live", headers={"X-Request-Id": given})
        assert replaced.headers["X-Request-Id"] != given


async def test_an_unexpected_error_tells_nothing_of_the_inside(
    app: Quart, bearer: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken() -> Response:
        raise RuntimeError("secret detail at 8:acs:someone")

    broken.__dict__[ACCESS] = "public"
    app.add_url_rule("/broken", "broken", broken)
    answer = await app.test_client().get("/broken")
    text = await text_of(answer)
    assert await error_of(answer) == (500, "internal_error")
    for internal in ("RuntimeError", "Traceback", ".py", "8:acs", "secret"):
        assert internal not in text


async def test_health_is_open_and_readiness_follows_the_upstreams(client: Client) -> None:
    assert (await client.get("/health/live")).status_code == 200
    for _ in range(100):  # the first check runs in the background
        ready = await client.get("/health/ready")
        if ready.status_code == 200:
            break
        await asyncio.sleep(0)
    assert (await client.get("/health/startup")).status_code == 200


async def test_the_openapi_document_is_valid_and_describes_every_api_route(client: Client) -> None:
    document = await (await client.get("/openapi.json")).get_json()
    validate(document)
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert set(AUTHENTICATED) <= described
    flow = document["components"]["securitySchemes"]["entra"]["flows"]["authorizationCode"]
    assert flow["authorizationUrl"].endswith("/oauth2/v2.0/authorize")


@pytest.mark.parametrize(("docs_client", "schemes"), [(None, ["entra", "token"]), (BROWSER.client_id, ["entra"])])
async def test_the_docs_ask_for_a_token_by_hand_unless_they_can_sign_users_in(
    configured: pytest.MonkeyPatch, docs_client: str | None, schemes: list[str]
) -> None:
    configured.delenv("DOCS_CLIENT_ID", raising=False)
    if docs_client is not None:
        configured.setenv("DOCS_CLIENT_ID", docs_client)
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        of_the_page = await (await client.get("/docs/openapi.json")).get_json()
        of_clients = await (await client.get("/openapi.json")).get_json()
    for document, named in ((of_the_page, schemes), (of_clients, ["entra", "token"])):
        validate(document)
        assert list(document["components"]["securitySchemes"]) == named
        assert [name for each in document["security"] for name in each] == named


async def test_generated_clients_get_good_names_and_are_told_which_routes_are_older_names(client: Client) -> None:
    document = await (await client.get("/openapi.json")).get_json()
    operations = {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
    }
    names = [operation["operationId"] for operation in operations.values()]
    assert len(set(names)) == len(names)
    assert {"get_user", "create_user", "delete_user", "get_token", "get_teams_token"} <= set(names)
    assert {"check_readiness", "get_protected_resource", "older_get_token"} <= set(names)
    assert all(operation["summary"] and operation["description"] for operation in operations.values())
    older = {"GET /getUser", "POST /getUser", "GET /getToken", "GET /exchangeToken"}
    assert {name for name, operation in operations.items() if operation.get("deprecated")} == older
    for name in older:
        assert operations[name]["description"].split("`")[1] in operations
    described = {tag["name"] for tag in document["tags"]}
    assert {tag for operation in operations.values() for tag in operation["tags"]} == described
    assert document["info"]["license"]["identifier"] == "MIT"
    assert document["servers"]
    assert document["externalDocs"]["url"]
    assert document["components"]["schemas"]["AcsUserToken"]["properties"]["expiresOn"]["format"] == "date-time"


async def test_answers_are_as_the_openapi_document_describes_them(client: Client, bearer: Bearer) -> None:
    document = await (await client.get("/openapi.json")).get_json()
    calls = [
        ("GET", "/api/user", bearer("alex")),
        ("POST", "/api/user", bearer("alex")),
        ("POST", "/api/user", bearer("alex")),
        ("GET", "/api/user", bearer("alex")),
        ("GET", "/api/token", bearer("alex")),
        ("GET", "/api/token?scope=voip.join&minutes=60", bearer("alex")),
        ("GET", "/api/token?scope=nonsense", bearer("alex")),
        ("DELETE", "/api/token", bearer("alex")),
        ("DELETE", "/api/token", bearer("megan")),
        ("GET", "/api/token", bearer("megan")),
        ("GET", "/api/token/teams", bearer("alex")),
        ("GET", "/health/live", {}),
        ("GET", "/api/user", {}),
        ("DELETE", "/api/user", bearer("alex")),
    ]
    for method, path, headers in calls:
        answer = await send(client, method, path, headers)
        described = document["paths"][path.partition("?")[0]][method.lower()]["responses"][str(answer.status_code)]
        if answer.status_code == HTTPStatus.NO_CONTENT:
            assert "content" not in described
            assert await answer.get_data() == b""
            continue
        schema = {**described["content"]["application/json"]["schema"], "components": document["components"]}
        jsonschema.validate(json.loads(await answer.get_data()), schema)


async def test_the_docs_page_and_its_assets_come_from_this_service_alone(client: Client) -> None:
    page = await text_of(await client.get("/docs"))
    assert "//" not in page.replace("<!doctype html>", "")
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "oauth2-redirect.html", "oauth2-redirect.js"):
        assert (await client.get(f"/docs/{asset}")).status_code == 200, asset
    start = await text_of(await client.get("/docs/start.js"))
    assert '"usePkceWithAuthorizationCodeGrant": true' in start
