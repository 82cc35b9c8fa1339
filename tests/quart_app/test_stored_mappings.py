"""What is stored is checked as tokens are: over the wire, from the caller's request to what Graph or Cosmos DB hold."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from azure.cosmos.aio import CosmosClient
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import COMMAND_LINE
from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.settings import load_settings
from tests.quart_app.cli.conftest import AcsAuth, acs_auth, environment  # noqa: F401  # fixtures of the commands
from tests.quart_app.conftest import Bearer

EXTENSION = "com.contoso.identityMapping"
TEAMS_USER = "8:orgid:11112222-bbbb-3333-cccc-4444dddd5555"
UNREADABLE = (409, "mapping_unreadable")

Serve = Callable[..., Awaitable[Client]]


@pytest.fixture
async def serve(local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Serve]:
    """`await serve("graph")`: the service with that store."""
    async with AsyncExitStack() as stack:

        async def start(storage: str, **settings: str) -> Client:
            for name, value in {**local_azure.service_environment(), "STORAGE_BACKEND": storage, **settings}.items():
                monkeypatch.setenv(name, value)
            return (await stack.enter_async_context(create_app(load_settings(None)))).test_client()

        yield start


class Person:
    """A user who calls the service, and who has Graph Explorer or any other program with `User.ReadWrite`."""

    def __init__(self, local_azure: LocalAzure, name: str, client: Client, bearer: Bearer) -> None:
        self._azure = local_azure
        self._client = client
        self._headers = bearer(name)
        token = local_azure.entra.graph_token(name, client=COMMAND_LINE, scope="User.ReadWrite")
        self._graph = {"Authorization": f"Bearer {token}"}
        self._url = f"{local_azure.service_environment()['GRAPH_BASE_URL']}/v1.0/me/extensions"

    async def call(self, method: str, path: str = "/api/user") -> tuple[int, Any]:
        """The status, and the error's name or the answer."""
        answer = await self._client.open(path, method=method, headers=self._headers)  # type: ignore[call-arg]
        body = await answer.get_json() if answer.status_code != 204 else None
        return answer.status_code, body.get("error", body) if body else None

    async def created(self) -> str:
        """The caller's identity, made now."""
        status, body = await self.call("POST")
        assert status == 201
        return str(body["acsUserIdentity"])

    async def extension(self) -> dict[str, Any]:
        """What Graph holds for this user."""
        async with (
            aiohttp.ClientSession() as http,
            http.get(f"{self._url}/{EXTENSION}", headers=self._graph) as answer,
        ):
            assert answer.status == 200
            found: dict[str, Any] = await answer.json()
            return found

    async def write(self, **properties: Any) -> None:
        """Write the own extension, as Graph lets every user."""
        body = {"@odata.type": "microsoft.graph.openTypeExtension", "extensionName": EXTENSION, **properties}
        async with aiohttp.ClientSession() as http:
            async with http.patch(f"{self._url}/{EXTENSION}", json=body, headers=self._graph) as answer:
                if answer.status == 204:
                    return
            async with http.post(self._url, json=body, headers=self._graph) as answer:
                assert answer.status == 201


async def change_item(local_azure: LocalAzure, **changes: Any) -> None:
    """Change the only item in the container as anybody with the key can; `...` takes a member away."""
    given = local_azure.service_environment()
    (item,) = local_azure.cosmos.items()
    changed = {
        name: value for name, value in {**item, **changes}.items() if value is not ... and not name.startswith("_")
    }
    async with CosmosClient(given["COSMOS_ENDPOINT"], given["COSMOS_KEY"]) as client:
        database = client.get_database_client(given["COSMOS_DATABASE"])
        await database.get_container_client(given["COSMOS_CONTAINER"]).replace_item(item["id"], changed)


class TestAnExtensionThatItsUserWrote:
    async def test_it_gets_no_token_of_another_deletes_nothing_of_another_and_is_copied_nowhere(
        self,
        serve: Serve,
        local_azure: LocalAzure,
        bearer: Bearer,
        acs_auth: AcsAuth,  # noqa: F811
    ) -> None:
        """Input 1."""
        client = await serve("graph")
        alex, megan = (Person(local_azure, name, client, bearer) for name in ("alex", "megan"))
        identity = await alex.created()
        await megan.write(acsUserIdentity=identity)
        assert await megan.call("GET", "/api/token") == UNREADABLE
        assert await megan.call("GET") == UNREADABLE
        assert await megan.call("POST") == UNREADABLE
        migrated = await acs_auth("migrate", "--from", "graph", "--to", "cosmos", "--json")
        told = json.loads(migrated.stdout)
        assert (migrated.exit_code, told["created"], told["unreadable"]) == (3, 1, 1)
        assert [item["acsUserId"] for item in local_azure.cosmos.items()] == [identity]
        assert await megan.call("DELETE") == (204, None)
        assert local_azure.acs.live_identities() == [identity]
        assert (await alex.call("GET", "/api/token"))[0] == 201
        assert await megan.created() != identity

    @pytest.mark.parametrize("copied", ["seal", "everything"])
    async def test_the_seal_of_another_does_not_help(
        self, serve: Serve, local_azure: LocalAzure, bearer: Bearer, copied: str
    ) -> None:
        client = await serve("graph")
        alex, megan = (Person(local_azure, name, client, bearer) for name in ("alex", "megan"))
        identity, own = await alex.created(), await megan.created()
        theirs, mine = await alex.extension(), await megan.extension()
        whole = {name: value for name, value in theirs.items() if name.startswith("acsUser")}
        seal = {"acsUserIdentity": own, "acsUserIdentitySeal": theirs["acsUserIdentitySeal"]}
        await megan.write(**(whole if copied == "everything" else seal))
        for path in ("/api/user", "/api/token"):
            assert await megan.call("GET", path) == UNREADABLE
        assert await megan.call("DELETE") == (204, None)
        assert identity in local_azure.acs.live_identities()
        await megan.write(acsUserIdentity=own, acsUserIdentitySeal=mine["acsUserIdentitySeal"])
        status, issued = await megan.call("GET", "/api/token")
        assert (status, issued["user"]) == (201, {"communicationUserId": own}), "One's own seal revives one's own."

    async def test_one_without_an_identity_has_a_way_out(
        self, serve: Serve, local_azure: LocalAzure, bearer: Bearer
    ) -> None:
        """Input 8."""
        client = await serve("graph")
        for value in ("", "null", 5, True, ["8:acs:x"], TEAMS_USER, "../../users"):
            alex = Person(local_azure, "alex", client, bearer)
            await alex.write(acsUserIdentity=value)
            assert await alex.call("GET") == UNREADABLE
            assert await alex.call("POST") == UNREADABLE
            assert await alex.call("DELETE") == (204, None)
            assert (await alex.call("POST"))[0] == 201
            assert await alex.call("DELETE") == (204, None)

    @pytest.mark.parametrize("time", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+14:00", "soon", 5, ""])
    async def test_a_time_out_of_the_calendar_is_no_failure(
        self, serve: Serve, local_azure: LocalAzure, bearer: Bearer, time: object
    ) -> None:
        """Input 9."""
        alex = Person(local_azure, "alex", await serve("graph"), bearer)
        identity = await alex.created()
        extension = await alex.extension()
        kept = {name: value for name, value in extension.items() if name.startswith("acsUser")}
        await alex.write(**kept | {"acsUserIdentityCreatedAt": time})
        assert await alex.call("GET") == (200, {"acsUserIdentity": identity})

    async def test_a_mapping_sealed_by_a_key_that_is_not_held_is_left_to_the_operator(
        self,
        serve: Serve,
        local_azure: LocalAzure,
        bearer: Bearer,
        acs_auth: AcsAuth,  # noqa: F811
    ) -> None:
        alex = Person(local_azure, "alex", await serve("graph"), bearer)
        identity = await alex.created()
        before = await alex.extension()
        other = Person(local_azure, "alex", await serve("graph", GRAPH_SEAL_KEYS="A" * 44), bearer)
        for method in ("GET", "POST", "DELETE"):
            assert await other.call(method) == UNREADABLE
        assert await alex.extension() == before
        assert await alex.call("GET") == (200, {"acsUserIdentity": identity})
        assert local_azure.acs.all_identities() == [identity]


class TestADamagedItem:
    async def test_text_is_no_deletion_mark(self, serve: Serve, local_azure: LocalAzure, bearer: Bearer) -> None:
        """Input 4."""
        client = await serve("cosmos")
        values: list[object] = ["false", "true", 0, 1, None, []]
        for value in values:
            alex = Person(local_azure, "alex", client, bearer)
            identity = await alex.created()
            await change_item(local_azure, deleting=value)
            minted = len(local_azure.acs.all_identities())
            assert await alex.call("POST") == UNREADABLE
            assert await alex.call("GET") == UNREADABLE
            assert (local_azure.acs.live_identities(), len(local_azure.acs.all_identities())) == ([identity], minted)
            assert await alex.call("DELETE") == (204, None)
            assert (local_azure.acs.live_identities(), local_azure.cosmos.items()) == ([], [])

    async def test_what_serializers_leave_out_is_false(
        self, serve: Serve, local_azure: LocalAzure, bearer: Bearer
    ) -> None:
        """Input 5."""
        alex = Person(local_azure, "alex", await serve("cosmos"), bearer)
        identity = await alex.created()
        await change_item(local_azure, deleting=..., createdAt=...)
        assert await alex.call("POST") == (200, {"acsUserIdentity": identity})
        assert await alex.call("GET") == (200, {"acsUserIdentity": identity})

    @pytest.mark.parametrize(
        "value", [None, "None", "", 8, True, "8:orgid:11112222-bbbb-3333-cccc-4444dddd5555", "8:acs:x/../y"]
    )
    async def test_what_is_no_acs_user_id_is_never_answered(
        self,
        serve: Serve,
        local_azure: LocalAzure,
        bearer: Bearer,
        value: object,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Input 6."""
        alex = Person(local_azure, "alex", await serve("cosmos"), bearer)
        identity = await alex.created()
        await change_item(local_azure, acsUserId=value)
        caplog.clear()
        assert await alex.call("GET") == UNREADABLE
        assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
            "a stored mapping can't be read"
        ]
        assert await alex.call("DELETE") == (204, None)
        assert local_azure.acs.live_identities() == [identity], "Whose it was is not certain any more."
        assert (await alex.call("POST"))[0] == 201

    @pytest.mark.parametrize(
        "note",
        [
            {"id": "a-note"},
            {"id": "note:with-a-colon", "deleting": "false"},
            {"id": "b", "acsUserId": 5, "issuer": None, "subject": ["x"], "createdAt": {}},
        ],
        ids=lambda note: str(note["id"]),
    )
    async def test_one_foreign_item_stops_nothing(
        self,
        serve: Serve,
        local_azure: LocalAzure,
        bearer: Bearer,
        acs_auth: AcsAuth,  # noqa: F811
        note: dict[str, Any],
        environment: dict[str, str | None],  # noqa: F811
    ) -> None:
        """Input 7."""
        client = await serve("cosmos")
        for name in ("alex", "megan", "pradeep"):
            await Person(local_azure, name, client, bearer).created()
        given = local_azure.service_environment()
        async with CosmosClient(given["COSMOS_ENDPOINT"], given["COSMOS_KEY"]) as cosmos:
            database = cosmos.get_database_client(given["COSMOS_DATABASE"])
            await database.get_container_client(given["COSMOS_CONTAINER"]).create_item(note)
        looked = await acs_auth("reconcile", "--store", "cosmos", "--dry-run", "--json")
        told = json.loads(looked.stdout)
        assert (looked.exit_code, told["mappings"], told["live"], told["unreadable"]) == (3, 3, 3, 1)
        moved = await acs_auth("migrate", "--from", "cosmos", "--to", "sqlite", "--json")
        told = json.loads(moved.stdout)
        assert (moved.exit_code, told["read"], told["created"], told["unreadable"]) == (3, 3, 3, 1)
        assert (await client.get("/api/user", headers=bearer("alex"))).status_code == 200
