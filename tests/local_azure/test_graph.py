"""The Graph stand-in answers as Microsoft Graph does."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from local_azure.entra.directory import API, USERS
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.graph import DirectoryUser, ServicePrincipal
from local_azure.graph.seal_key import seal_key
from local_azure.user_states import Mark
from tests.conftest import FakeClock
from tests.support.running_graph import AVERY, BLAKE, TENANT, RunningGraph, running_graph

NAME = "com.contoso.identityMapping"
EXTENSION = {
    "@odata.type": "microsoft.graph.openTypeExtension",
    "extensionName": NAME,
    "acsUserIdentity": "8:acs:one",
}
NOON = 1_800_000_000.0


class Client:
    """Calls the stand-in and keeps the last answer's headers."""

    def __init__(self, session: aiohttp.ClientSession, graph: RunningGraph) -> None:
        self.session, self.running, self.headers = session, graph, dict[str, str]()

    async def __call__(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        token: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any]:
        sent = {"Authorization": f"Bearer {token}"} if token else {}
        url = path if path.startswith("https:") else f"{self.running.url}/v1.0{path}"
        async with self.session.request(method, url, json=body, headers={**sent, **(headers or {})}) as answer:
            self.headers = dict(answer.headers)
            return answer.status, (await answer.json() if answer.content_type == "application/json" else None)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
async def running(state_directory: Path, clock: FakeClock) -> AsyncIterator[RunningGraph]:
    async with running_graph(state_directory, clock) as running:
        yield running


@pytest.fixture
async def call(running: RunningGraph) -> AsyncIterator[Client]:
    async with aiohttp.ClientSession() as session:
        yield Client(session, running)


@pytest.fixture
def token(running: RunningGraph) -> str:
    return running.user_token()


async def test_a_created_extension_is_answered_with_its_name_as_id(call: Client, token: str) -> None:
    status, body = await call("POST", "/me/extensions", EXTENSION, token=token)
    assert status == 201
    assert body.pop("@odata.context").endswith("/extensions/$entity")
    assert body == {
        "@odata.type": "#microsoft.graph.openTypeExtension",
        "extensionName": NAME,
        "id": NAME,
        "acsUserIdentity": "8:acs:one",
    }


async def test_the_samples_query_shows_a_users_own_extensions_only(
    call: Client, running: RunningGraph, token: str
) -> None:
    assert (await call("GET", "/me?$select=id&$expand=extensions", token=token))[1]["extensions"] == []
    await call("POST", "/me/extensions", EXTENSION, token=token)
    status, body = await call("GET", "/me?$expand=extensions&$select=id", token=token)
    assert status == 200
    assert body["id"] == AVERY.object_id
    assert [extension["acsUserIdentity"] for extension in body["extensions"]] == ["8:acs:one"]
    other = running.user_token(BLAKE)
    assert (await call("GET", "/me?$select=id&$expand=extensions", token=other))[1]["extensions"] == []


@pytest.mark.parametrize("name", [NAME, f"microsoft.graph.openTypeExtension.{NAME}"])
async def test_an_extension_is_read_by_its_bare_or_qualified_name(call: Client, token: str, name: str) -> None:
    await call("POST", "/me/extensions", EXTENSION, token=token)
    status, body = await call("GET", f"/me/extensions/{name}", token=token)
    assert (status, body["acsUserIdentity"]) == (200, "8:acs:one")
    assert len((await call("GET", "/me/extensions", token=token))[1]["value"]) == 1


async def test_an_expansion_can_be_filtered_by_id(call: Client, token: str) -> None:
    await call("POST", "/me/extensions", EXTENSION, token=token)
    await call("POST", "/me/extensions", {**EXTENSION, "extensionName": "com.example.other"}, token=token)
    path = f"/me?$select=id&$expand=extensions($filter=id eq '{NAME}')"
    assert [found["id"] for found in (await call("GET", path, token=token))[1]["extensions"]] == [NAME]


async def test_a_patch_answers_204_and_erases_what_was_not_sent_or_is_null(call: Client, token: str) -> None:
    await call("POST", "/me/extensions", {**EXTENSION, "kept": 1, "cleared": 2, "forgotten": 3}, token=token)
    status, body = await call("PATCH", f"/me/extensions/{NAME}", {"kept": 4, "cleared": None}, token=token)
    assert (status, body) == (204, None)
    _, body = await call("GET", f"/me/extensions/{NAME}", token=token)
    assert body == {
        "@odata.type": "#microsoft.graph.openTypeExtension",
        "extensionName": NAME,
        "id": NAME,
        "kept": 4,
    }


async def test_a_deleted_extension_is_gone(call: Client, token: str) -> None:
    await call("POST", "/me/extensions", EXTENSION, token=token)
    assert await call("DELETE", f"/me/extensions/{NAME}", token=token) == (204, None)
    assert (await call("DELETE", f"/me/extensions/{NAME}", token=token))[0] == 404


async def test_a_duplicate_is_a_bad_request_and_changes_nothing(call: Client, token: str) -> None:
    await call("POST", "/me/extensions", EXTENSION, token=token)
    status, body = await call("POST", "/me/extensions", {**EXTENSION, "acsUserIdentity": "8:acs:two"}, token=token)
    assert status == 400
    assert body["error"]["code"] == "Request_BadRequest"
    assert body["error"]["message"] == "An extension already exists with given id."
    assert (await call("GET", f"/me/extensions/{NAME}", token=token))[1]["acsUserIdentity"] == "8:acs:one"


async def test_an_app_may_create_two_extensions_per_user(call: Client, running: RunningGraph, token: str) -> None:
    for name in ("one", "two"):
        assert (await call("POST", "/me/extensions", {**EXTENSION, "extensionName": name}, token=token))[0] == 201
    status, body = await call("POST", "/me/extensions", EXTENSION, token=token)
    assert (status, body["error"]["code"]) == (400, "Request_BadRequest")
    assert body["error"]["message"] == "Maximum number of extensions values supported per application is 2."
    other_app = running.user_token(appid="another-app")
    assert (await call("POST", "/me/extensions", EXTENSION, token=other_app))[0] == 201


async def test_an_extension_holds_two_kilobytes_at_most(call: Client, token: str) -> None:
    assert (await call("POST", "/me/extensions", {**EXTENSION, "more": "x" * 2048}, token=token))[0] == 400
    await call("POST", "/me/extensions", EXTENSION, token=token)
    assert (await call("PATCH", f"/me/extensions/{NAME}", {"more": "x" * 2048}, token=token))[0] == 400


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_extension_is_not_found(call: Client, token: str, method: str) -> None:
    status, body = await call(method, f"/me/extensions/{NAME}", {} if method == "PATCH" else None, token=token)
    assert status == 404
    assert (body["error"]["code"], body["error"]["message"]) == (
        "ResourceNotFound",
        "Extension with given id not found.",
    )


@pytest.mark.parametrize(
    "body",
    [
        [],
        {"extensionName": NAME},
        {"@odata.type": "microsoft.graph.openTypeExtension"},
        {"@odata.type": "user", "extensionName": NAME},
    ],
)
async def test_a_malformed_extension_is_a_bad_request(call: Client, token: str, body: Any) -> None:
    assert (await call("POST", "/me/extensions", body, token=token))[0] == 400


async def test_an_error_carries_the_time_and_both_request_ids(call: Client, token: str) -> None:
    _, body = await call("GET", f"/me/extensions/{NAME}", token=token, headers={"client-request-id": "mine"})
    inner = body["error"]["innerError"]
    assert inner["date"] == "2027-01-15T08:00:00"
    assert inner["client-request-id"] == call.headers["client-request-id"] == "mine"
    assert inner["request-id"] == call.headers["request-id"]


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        (None, "Access token is empty."),
        ({"aud": "api://other"}, "Access token validation failure. Invalid audience."),
        ("garbage", "Access token validation failure."),
    ],
)
async def test_a_bad_token_is_refused_before_anything_else(
    call: Client, running: RunningGraph, claims: Any, message: str
) -> None:
    token = running.user_token(**claims) if isinstance(claims, dict) else claims
    for path in ("/me", "/unknown"):
        status, body = await call("GET", path, token=token)
        assert status == 401
        assert (body["error"]["code"], body["error"]["message"]) == ("InvalidAuthenticationToken", message)
        assert call.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("audience", ["https://graph.microsoft.com/", "00000003-0000-0000-c000-000000000000", "own"])
async def test_graphs_names_and_its_own_address_are_its_audiences(
    call: Client, running: RunningGraph, audience: str
) -> None:
    token = running.user_token(aud=running.url if audience == "own" else audience)
    assert (await call("GET", "/me", token=token))[0] == 200


async def test_reading_needs_user_read_and_writing_user_readwrite(call: Client, running: RunningGraph) -> None:
    reader, stranger = running.user_token(scopes="User.Read"), running.user_token(scopes="Mail.Read")
    assert (await call("GET", "/me?$select=id&$expand=extensions", token=reader))[0] == 200
    assert (await call("GET", "/me", token=stranger))[0] == 403
    for method, path in (
        ("POST", "/me/extensions"),
        ("PATCH", f"/me/extensions/{NAME}"),
        ("DELETE", f"/me/extensions/{NAME}"),
    ):
        status, body = await call(method, path, EXTENSION, token=reader)
        assert status == 403
        assert body["error"]["code"] == "Authorization_RequestDenied"
        assert body["error"]["message"] == "Insufficient privileges to complete the operation."


async def test_me_is_not_for_app_only_tokens(call: Client, running: RunningGraph) -> None:
    status, body = await call("GET", "/me", token=running.app_token("User.ReadWrite.All"))
    assert (status, body["error"]["code"]) == (400, "BadRequest")


async def test_an_app_with_the_role_manages_the_extensions_of_any_user(call: Client, running: RunningGraph) -> None:
    path = f"/users/{AVERY.object_id}/extensions"
    reader, writer = running.app_token("User.Read.All"), running.app_token("User.ReadWrite.All")
    assert (await call("POST", path, EXTENSION, token=reader))[0] == 403
    assert (await call("POST", path, EXTENSION, token=writer))[0] == 201
    assert (await call("GET", f"{path}/{NAME}", token=reader))[0] == 200
    assert (await call("GET", f"/users/{AVERY.object_id}?$select=id", token=reader))[1]["id"] == AVERY.object_id
    assert (await call("PATCH", f"{path}/{NAME}", {"a": 1}, token=writer))[0] == 204
    assert (await call("DELETE", f"{path}/{NAME}", token=writer))[0] == 204


async def test_a_user_reads_others_only_with_a_permission_for_all_and_never_writes_them(
    call: Client, running: RunningGraph
) -> None:
    path = f"/users/{BLAKE.object_id}/extensions"
    assert (await call("GET", path, token=running.user_token()))[0] == 403
    everyone = running.user_token(scopes="User.ReadWrite.All")
    assert (await call("GET", path, token=everyone))[0] == 200
    assert (await call("POST", path, EXTENSION, token=everyone))[0] == 403


@pytest.mark.parametrize("app", ["7d3f7c1a-2f6d-4f0a-8f39-1f9f0a0b0c0d", "graph-explorer"])
async def test_users_write_their_own_extensions_with_any_program(
    call: Client, running: RunningGraph, app: str, token: str
) -> None:
    await call("POST", "/me/extensions", EXTENSION, token=token)
    own = running.user_token(appid=app)
    for path in (f"/me/extensions/{NAME}", f"/users/{AVERY.object_id}/extensions/{NAME}"):
        assert (await call("PATCH", path, {"acsUserIdentity": f"8:acs:{path}"}, token=own))[0] == 204
        assert (await call("GET", path, token=token))[1]["acsUserIdentity"] == f"8:acs:{path}"
    assert (await call("DELETE", f"/me/extensions/{NAME}", token=own))[0] == 204
    assert (await call("POST", "/me/extensions", EXTENSION, token=own))[0] == 201


async def test_no_application_changes_a_user_who_holds_a_directory_role(
    call: Client, running: RunningGraph, token: str
) -> None:
    running.graph.user_states.mark(AVERY, Mark.DIRECTORY_ROLE)
    app = running.app_token("User.ReadWrite.All")
    path = f"/users/{AVERY.object_id}/extensions"
    for method, where in (("POST", path), ("PATCH", f"{path}/{NAME}"), ("DELETE", f"{path}/{NAME}")):
        status, body = await call(method, where, EXTENSION, token=app)
        assert (status, body["error"]["code"]) == (403, "Authorization_RequestDenied")
        assert body["error"]["message"] == "Insufficient privileges to complete the operation."
    assert (await call("GET", path, token=app))[0] == 200
    assert (await call("POST", "/me/extensions", EXTENSION, token=token))[0] == 201
    assert (await call("POST", f"/users/{BLAKE.object_id}/extensions", EXTENSION, token=app))[0] == 201
    running.graph.user_states.clear_marks(AVERY)
    assert (await call("DELETE", f"{path}/{NAME}", token=app))[0] == 204


async def test_an_unknown_user_is_not_found(call: Client, running: RunningGraph) -> None:
    status, body = await call("GET", "/users/nobody", token=running.app_token("User.Read.All"))
    assert (status, body["error"]["code"]) == (404, "Request_ResourceNotFound")


async def test_users_are_listed_page_by_page_with_their_extensions(call: Client, running: RunningGraph) -> None:
    running.users = [DirectoryUser(TENANT, f"user-{number}", "") for number in range(5)]
    running.users.append(DirectoryUser("another-tenant", "user-9", ""))
    for user in running.users[:5]:
        await call("POST", "/me/extensions", EXTENSION, token=running.user_token(user))
    reader = running.app_token("User.Read.All")
    pages, path = [], "/users?$select=id&$expand=extensions&$top=2"
    while path:
        status, body = await call("GET", path, token=reader)
        assert status == 200
        pages.append([(user["id"], len(user["extensions"])) for user in body["value"]])
        path = body.get("@odata.nextLink", "")
    assert pages == [[("user-0", 1), ("user-1", 1)], [("user-2", 1), ("user-3", 1)], [("user-4", 1)]]


async def test_listing_users_needs_the_permission(call: Client, running: RunningGraph) -> None:
    assert (await call("GET", "/users", token=running.app_token("Mail.Read")))[0] == 403
    assert (await call("GET", "/users", token=running.user_token()))[0] == 403


@pytest.mark.parametrize(
    "query", ["$skip=1", "$top=0", "$top=x", "$skiptoken=%FF", "$expand=manager", "$select=shoeSize"]
)
async def test_unsupported_queries_are_bad_requests(call: Client, running: RunningGraph, query: str) -> None:
    assert (await call("GET", f"/users?{query}", token=running.app_token("User.Read.All")))[0] == 400


async def test_expanding_is_not_possible_with_advanced_queries(call: Client, running: RunningGraph) -> None:
    eventual = {"ConsistencyLevel": "eventual"}
    reader = running.app_token("User.Read.All")
    assert (await call("GET", "/users?$expand=extensions", token=reader, headers=eventual))[0] == 400
    assert (await call("GET", "/users", token=reader, headers=eventual))[0] == 200


async def test_unknown_segments_and_methods_get_graphs_errors(call: Client, token: str) -> None:
    status, body = await call("GET", "/me/shoes", token=token)
    assert (status, body["error"]["message"]) == (400, "Resource not found for the segment 'shoes'.")
    assert (await call("PUT", f"/me/extensions/{NAME}", {}, token=token))[0] == 405


async def test_reads_may_not_see_a_new_extension_yet_while_a_duplicate_is_refused(
    call: Client, running: RunningGraph, token: str
) -> None:
    running.graph.extensions.lag_reads = 2
    await call("POST", "/me/extensions", EXTENSION, token=token)
    assert (await call("POST", "/me/extensions", EXTENSION, token=token))[0] == 400
    assert (await call("GET", f"/me/extensions/{NAME}", token=token))[0] == 404
    assert (await call("GET", "/me?$select=id&$expand=extensions", token=token))[1]["extensions"] == []
    assert (await call("GET", f"/me/extensions/{NAME}", token=token))[0] == 200


async def test_throttling_counts_extension_requests_per_app_and_tenant_in_ten_seconds(
    call: Client, running: RunningGraph, clock: FakeClock, token: str
) -> None:
    running.graph.throttle_limit = 2
    await call("GET", "/me/extensions", token=token)
    clock.advance(4)
    await call("GET", "/me/extensions", token=token)
    status, body = await call("GET", "/me/extensions", token=token)
    assert (status, body["error"]["code"], call.headers["Retry-After"]) == (429, "TooManyRequests", "10")
    assert (await call("GET", "/me", token=token))[0] == 200
    other_app = running.user_token(appid="another-app")
    assert (await call("GET", "/me/extensions", token=other_app))[0] == 200
    clock.advance(10)
    assert (await call("GET", "/me/extensions", token=token))[0] == 200


async def test_extensions_survive_a_restart(state_directory: Path) -> None:
    async with running_graph(state_directory) as running, aiohttp.ClientSession() as session:
        await Client(session, running)("POST", "/me/extensions", EXTENSION, token=running.user_token())
    async with running_graph(state_directory) as running, aiohttp.ClientSession() as session:
        _, body = await Client(session, running)("GET", "/me/extensions", token=running.user_token())
    assert [extension["id"] for extension in body["value"]] == [NAME]


async def test_every_call_is_known_to_the_faults_by_its_operation(
    call: Client, running: RunningGraph, token: str
) -> None:
    operations = {
        ("GET", "/me"): "get_me",
        ("GET", "/me/extensions"): "list_extensions",
        ("POST", "/me/extensions"): "create_extension",
        ("GET", "/me/extensions/x"): "get_extension",
        ("PATCH", "/me/extensions/x"): "update_extension",
        ("DELETE", "/me/extensions/x"): "delete_extension",
        ("GET", "/users"): "list_users",
        ("GET", "/users/x"): "get_user",
        ("GET", "/users/x/extensions"): "list_user_extensions",
        ("POST", "/users/x/extensions"): "create_user_extension",
        ("GET", "/users/x/extensions/y"): "get_user_extension",
        ("PATCH", "/users/x/extensions/y"): "update_user_extension",
        ("DELETE", "/users/x/extensions/y"): "delete_user_extension",
        ("POST", "/directoryObjects/getByIds"): "get_by_ids",
        ("GET", "/directory/deletedItems/x"): "get_deleted_item",
        ("GET", "/directory/deletedItems/microsoft.graph.user"): "list_deleted_users",
    }
    for (method, path), operation in operations.items():
        running.graph.faults.script(operation, Fault(status=418))
        assert (await call(method, path, token=token))[0] == 418, operation
        assert running.graph.faults.counts[operation] == 1


async def test_the_service_is_told_the_host_root_and_a_key_that_the_state_directory_keeps(
    running: RunningGraph, state_directory: Path
) -> None:
    key = state_directory / "graph-seal-key"
    assert running.graph.service_environment() == {
        "GRAPH_BASE_URL": running.url,
        "GRAPH_SEAL_KEYS": key.read_text().strip(),
    }
    assert key.stat().st_mode & 0o777 == 0o600
    assert seal_key(state_directory) == key.read_text().strip()


# Objects of the directory


READER = ("Directory.Read.All",)
UNKNOWN = "00000000-0000-4000-8000-0000000000ff"


async def by_ids(call: Client, token: str, ids: Any, **more: Any) -> tuple[int, Any]:
    return await call("POST", "/directoryObjects/getByIds", {"ids": ids, **more}, token=token)


async def test_the_objects_that_exist_are_told_by_their_ids(call: Client, running: RunningGraph) -> None:
    running.users.append(DirectoryUser("another-tenant", "00000000-0000-4000-8000-00000000000c", "Casey"))
    ids = [BLAKE.object_id.upper(), UNKNOWN, AVERY.object_id, AVERY.object_id, running.users[-1].object_id]
    status, body = await by_ids(call, running.app_token(*READER), ids)
    assert status == 200
    assert body == {
        "@odata.context": f"{running.url}/v1.0/$metadata#directoryObjects",
        "value": [
            {"@odata.type": "#microsoft.graph.user", "id": AVERY.object_id, "displayName": "Avery"},
            {"@odata.type": "#microsoft.graph.user", "id": BLAKE.object_id, "displayName": "Blake"},
        ],
    }


@pytest.mark.parametrize(
    ("types", "kinds"),
    [
        (None, ["user", "servicePrincipal"]),
        ([], ["user", "servicePrincipal"]),
        (["directoryObject"], ["user", "servicePrincipal"]),
        (["USER"], ["user"]),
        (["microsoft.graph.servicePrincipal"], ["servicePrincipal"]),
        (["user", "serviceprincipal"], ["user", "servicePrincipal"]),
        (["group"], []),
    ],
)
async def test_users_and_service_principals_are_found_by_their_types(
    local_azure: LocalAzure, types: Any, kinds: list[str]
) -> None:
    url = local_azure.graph.service_environment()["GRAPH_BASE_URL"]
    token = local_azure.entra.app_only_token(API, scope="https://graph.microsoft.com/.default")
    sent = {"ids": [API.object_id, USERS["alex"].object_id], "types": types}
    body = {name: value for name, value in sent.items() if value is not None}
    headers = {"Authorization": f"Bearer {token}"}
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{url}/v1.0/directoryObjects/getByIds", json=body) as answer,
    ):
        assert answer.status == 200
        found = (await answer.json())["value"]
    assert [each["@odata.type"].removeprefix("#microsoft.graph.") for each in found] == kinds
    if "servicePrincipal" in kinds:
        assert (found[-1]["id"], found[-1]["appId"]) == (API.object_id, API.client_id)


@pytest.mark.parametrize("count", [1000, 1001])
async def test_a_thousand_ids_can_be_asked_for_at_once(call: Client, running: RunningGraph, count: int) -> None:
    ids = [AVERY.object_id, *(f"00000000-0000-4000-9000-{number:012}" for number in range(count - 1))]
    status, body = await by_ids(call, running.app_token(*READER), ids, types=["user"])
    if count > 1000:
        assert (status, body["error"]["code"]) == (400, "Request_BadRequest")
    else:
        assert (status, len(body["value"])) == (200, 1)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"ids": []},
        {"ids": "x"},
        {"ids": [1]},
        {"ids": ["not a guid"]},
        {"ids": [UNKNOWN, "8:acs:x"]},
        {"ids": [UNKNOWN], "types": "user"},
        {"ids": [UNKNOWN], "types": [1]},
        {"ids": [UNKNOWN], "types": ["shoe"]},
    ],
)
async def test_a_malformed_question_for_objects_is_a_bad_request(
    call: Client, running: RunningGraph, body: dict[str, Any]
) -> None:
    status, answer = await call("POST", "/directoryObjects/getByIds", body, token=running.app_token(*READER))
    assert (status, answer["error"]["code"]) == (400, "Request_BadRequest")


async def test_asking_for_objects_needs_the_permission_to_read_the_directory(
    call: Client, running: RunningGraph
) -> None:
    for token in (running.app_token("User.ReadWrite.All"), running.user_token()):
        status, body = await by_ids(call, token, [AVERY.object_id])
        assert (status, body["error"]["code"]) == (403, "Authorization_RequestDenied")
    delegated = running.user_token(scopes="Directory.Read.All")
    assert (await by_ids(call, delegated, [AVERY.object_id]))[0] == 200


async def test_only_what_is_selected_is_told(call: Client, running: RunningGraph) -> None:
    path = "/directoryObjects/getByIds?$select=id"
    _, body = await call("POST", path, {"ids": [AVERY.object_id]}, token=running.app_token(*READER))
    assert body["value"] == [{"@odata.type": "#microsoft.graph.user", "id": AVERY.object_id}]


async def test_a_deleted_user_is_in_the_deleted_items_for_thirty_days(
    call: Client, running: RunningGraph, clock: FakeClock
) -> None:
    app = running.app_token(*READER)
    item = f"/directory/deletedItems/{AVERY.object_id}"
    assert (await call("GET", item, token=app))[0] == 404
    running.graph.user_states.delete(AVERY)
    assert (await call("GET", f"/users/{AVERY.object_id}", token=app))[0] == 404
    assert [user["id"] for user in (await call("GET", "/users", token=app))[1]["value"]] == [BLAKE.object_id]
    _, found = await by_ids(call, app, [AVERY.object_id, BLAKE.object_id])
    assert [each["id"] for each in found["value"]] == [BLAKE.object_id]
    clock.advance(30 * 86_400 - 1)
    status, body = await call("GET", item, token=app)
    assert status == 200
    assert body == {
        "@odata.context": f"{running.url}/v1.0/$metadata#directoryObjects/$entity",
        "@odata.type": "#microsoft.graph.user",
        "id": AVERY.object_id,
        "displayName": "Avery",
        "deletedDateTime": "2027-01-15T08:00:00Z",
    }
    clock.advance(1)
    status, body = await call("GET", item, token=app)
    assert (status, body["error"]["code"]) == (404, "Request_ResourceNotFound")
    assert (await call("GET", f"/users/{AVERY.object_id}", token=app))[0] == 404


async def test_a_restored_user_is_back_with_the_extensions_and_a_purged_one_is_nowhere(
    call: Client, running: RunningGraph, token: str
) -> None:
    app = running.app_token(*READER)
    await call("POST", "/me/extensions", EXTENSION, token=token)
    running.graph.user_states.delete(AVERY)
    assert (await call("GET", "/me/extensions", token=token))[0] == 404
    running.graph.user_states.restore(AVERY)
    assert (await call("GET", f"/me/extensions/{NAME}", token=token))[0] == 200
    assert (await call("GET", f"/directory/deletedItems/{AVERY.object_id}", token=app))[0] == 404
    running.graph.user_states.purge(AVERY)
    assert (await call("GET", "/me", token=token))[0] == 404
    assert (await call("GET", f"/directory/deletedItems/{AVERY.object_id}", token=app))[0] == 404


async def test_a_service_principal_may_be_asked_for_and_its_own_without_permission(
    call: Client, running: RunningGraph
) -> None:
    principal = ServicePrincipal("00000000-0000-4000-8000-0000000000aa", "00000000-0000-4000-8000-0000000000bb", "App")
    running.service_principals.append(principal)
    by_app = f"/servicePrincipals(appId='{principal.app_id}')?$select=id"
    status, body = await call("GET", by_app, token=running.app_token(*READER))
    assert (status, body["id"], "displayName" in body) == (200, principal.object_id, False)
    by_id = await call("GET", f"/servicePrincipals/{principal.object_id}", token=running.app_token(*READER))
    assert by_id[1]["appId"] == principal.app_id
    unknown = f"/servicePrincipals(appId='{UNKNOWN}')"
    assert (await call("GET", unknown, token=running.app_token(*READER)))[0] == 404
    assert (await call("GET", unknown, token=running.app_token()))[0] == 403
    assert (await call("GET", by_app, token=running.user_token()))[0] == 403
    own = running.app_token(appid=principal.app_id)
    assert (await call("GET", by_app, token=own))[0] == 200


@pytest.mark.parametrize("spelling", ["deletedItems", "deleteditems"])
async def test_deleted_users_are_listed_page_by_page(call: Client, running: RunningGraph, spelling: str) -> None:
    running.users = [DirectoryUser(TENANT, f"user-{number}", "") for number in range(4)]
    running.users.append(DirectoryUser("another-tenant", "user-9", ""))
    for user in (*running.users[:3], running.users[-1]):
        running.graph.user_states.delete(user)
    app = running.app_token("User.Read.All")
    pages, path = [], f"/directory/{spelling}/microsoft.graph.user?$select=id,deletedDateTime&$top=2"
    while path:
        status, body = await call("GET", path, token=app)
        assert status == 200
        pages.append([user["id"] for user in body["value"]])
        path = body.get("@odata.nextLink", "")
    assert pages == [["user-0", "user-1"], ["user-2"]]
    assert (await call("GET", "/directory/deletedItems/microsoft.graph.user", token=running.user_token()))[0] == 403
    assert (await call("GET", "/directory/deletedItems/user-0", token=running.user_token()))[0] == 403
    assert (await call("GET", "/directory/deletedItems", token=app))[0] == 400
