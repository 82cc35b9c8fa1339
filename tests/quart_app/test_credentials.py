"""No secret at all: ACS, Cosmos DB and on-behalf-of with one managed identity, over the wire, on every store."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from azure.identity.aio import ManagedIdentityCredential
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import API, MANAGED_IDENTITY
from local_azure.environment import LocalAzure
from local_azure.faults import Call, Fault
from quart_app.app import create_app
from quart_app.credentials import ManagedIdentityRefused, ManagedIdentityUnavailable, credentials_in_use
from quart_app.settings import InvalidSettings, Settings, load_settings
from tests.quart_app.conftest import Bearer
from tests.support.answers import error_of
from tests.support.certificates import write_certificate
from tests.support.service_process import acs_auth, finished, python

STORES = ("cosmos", "graph", "sqlite")
SECRETS = {"ENTRA_CLIENT_SECRET", "ACS_CONNECTION_STRING", "COSMOS_KEY"}
NOT_OWNED = {"error": {"code": "IdentityNotOwned", "message": "Provided identity doesn't belong to the resource."}}

Serve = Callable[[str], AbstractAsyncContextManager[Client]]


def environment_without_secrets(local_azure: LocalAzure, directory: Path, storage: str) -> dict[str, str]:
    given = local_azure.service_environment(secrets=False)
    assert not given.keys() & SECRETS
    return {
        **given,
        "STORAGE_BACKEND": storage,
        "SQLITE_PATH": str(directory / "mappings.sqlite"),
    }


@pytest.fixture
def without_secrets(
    local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Settings]:
    def load(storage: str) -> Settings:
        for name, value in environment_without_secrets(local_azure, tmp_path, storage).items():
            monkeypatch.setenv(name, value)
        return load_settings(None)

    return load


@pytest.fixture
def serve(without_secrets: Callable[[str], Settings]) -> Serve:
    """The whole service, with the managed identity as its only credential."""

    @asynccontextmanager
    async def served(storage: str) -> AsyncIterator[Client]:
        async with create_app(without_secrets(storage)) as app:
            yield app.test_client()

    return served


def tokens_of(calls: list[Call], scheme: str) -> list[dict[str, str]]:
    """The claims of every call's access token; fails when a call was authorized in another way."""
    assert calls
    assert all(call.headers["Authorization"].startswith(scheme) for call in calls)
    sent = {call.headers["Authorization"].removeprefix(scheme) for call in calls}
    return [jwt.decode(token, options={"verify_signature": False}) for token in sent]


@pytest.mark.parametrize("storage", STORES)
async def test_the_whole_service_works_without_a_secret(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, storage: str
) -> None:
    async with serve(storage) as client:
        created = await client.post("/api/user", headers=bearer("alex"))
        identity = (await created.get_json())["acsUserIdentity"]
        read = await client.get("/api/user", headers=bearer("alex"))
        token = await client.get("/api/token", headers=bearer("alex"))
        assert (created.status_code, read.status_code, token.status_code) == (201, 200, 201)
        assert local_azure.acs.verify_token((await token.get_json())["token"])["skypeid"] == identity.removeprefix("8:")
        assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
        assert local_azure.acs.live_identities() == []


@pytest.mark.parametrize("storage", STORES)
async def test_every_request_carries_a_token_of_the_identity_and_no_signature_by_a_key(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, storage: str
) -> None:
    async with serve(storage) as client:
        for path in ("/api/user", "/getUser"):
            await client.post(path, headers=bearer("alex"))
        await client.get("/api/token", headers=bearer("alex"))
        await client.delete("/api/user", headers=bearer("alex"))
    [acs] = tokens_of(list(local_azure.acs.faults.calls), "Bearer ")
    assert (acs["aud"], acs["appid"]) == ("https://communication.azure.com/", MANAGED_IDENTITY.client_id)
    if storage == "cosmos":
        [cosmos] = tokens_of(list(local_azure.cosmos.faults.calls), "type=aad&ver=1.0&sig=")
        assert (cosmos["aud"], cosmos["appid"]) == ("https://localhost", MANAGED_IDENTITY.client_id)
    if storage == "graph":
        # The readiness check asks without a token, on purpose.
        calls = [call for call in local_azure.graph.faults.calls if "Authorization" in call.headers]
        for graph in tokens_of(calls, "Bearer "):
            assert (graph["appid"], graph["appidacr"]) == (API.client_id, "2")  # an assertion, not a secret


async def test_one_token_of_the_identity_serves_every_call(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer
) -> None:
    async with serve("sqlite") as client:
        for user in ("alex", "megan"):
            await client.post("/api/user", headers=bearer(user))
            await asyncio.gather(*(client.get("/api/token", headers=bearer(user)) for _ in range(5)))
    assert local_azure.acs.faults.counts["issue_access_token"] == 10
    assert local_azure.entra.faults.counts["managed_identity_token"] == 1


async def test_acs_and_cosmos_share_one_credential_which_gets_a_token_for_each(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []
    initialize = ManagedIdentityCredential.__init__

    def counted(self: ManagedIdentityCredential, **keywords: Any) -> None:
        made.append(self)
        initialize(self, **keywords)

    monkeypatch.setattr(ManagedIdentityCredential, "__init__", counted)
    async with serve("cosmos") as client:
        assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
    assert local_azure.entra.faults.counts["managed_identity_token"] == 2
    assert len(made) == 1


async def test_a_refusal_of_one_identity_neither_loops_nor_costs_a_new_token(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer
) -> None:
    """azure-core drops its token at every 401, and IdentityNotOwned is one; the credential still has it."""
    async with serve("sqlite") as client:
        await client.post("/api/user", headers=bearer("alex"))
        local_azure.acs.faults.script("issue_access_token", Fault(status=401, body=NOT_OWNED, times=None))
        for attempt in (1, 2, 3):
            answer = await client.get("/api/token", headers=bearer("alex"))
            assert await error_of(answer) == (409, "identity_resource_mismatch")
            assert local_azure.acs.faults.counts["issue_access_token"] == attempt
    assert local_azure.entra.faults.counts["managed_identity_token"] == 1


@pytest.mark.parametrize(
    ("fault", "expected", "requests"),
    [
        (Fault(status=500, times=None), (503, "service_unavailable"), 4),
        (Fault(status=429, times=None), (503, "service_unavailable"), 4),
        (Fault(status=410, times=None), (503, "service_unavailable"), 4),
        (Fault(reset=True, times=None), (503, "service_unavailable"), 4),
        (
            Fault(status=400, body={"message": "No such identity."}, times=None),
            (502, "upstream_credentials_rejected"),
            1,
        ),
        (Fault(status=401, times=None), (502, "upstream_credentials_rejected"), 1),
    ],
    ids=lambda value: str(getattr(value, "status", "") or "")[:3] or None,
)
async def test_trouble_with_the_identity_is_told_apart_and_mints_nothing(
    serve: Serve,
    local_azure: LocalAzure,
    bearer: Bearer,
    fault: Fault,
    expected: tuple[int, str],
    requests: int,
) -> None:
    local_azure.entra.faults.script("managed_identity_token", fault)
    async with serve("sqlite") as client:
        answer = await client.post("/api/user", headers=bearer("alex"))
        assert await error_of(answer) == expected
        assert ("Retry-After" in answer.headers) == (expected[0] == 503)
        assert local_azure.entra.faults.counts["managed_identity_token"] == requests  # ours alone, never multiplied
        assert local_azure.acs.faults.counts["create_identity"] == 0
        local_azure.entra.faults.clear()
        assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
    assert len(local_azure.acs.all_identities()) == 1


@pytest.mark.parametrize(("status", "expected"), [(500, 503), (400, 502)])
async def test_trouble_with_the_federated_credential_is_told_apart(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, status: int, expected: int
) -> None:
    local_azure.entra.faults.script("managed_identity_token", Fault(status=status, times=None))
    async with serve("graph") as client:
        answer = await client.get("/api/user", headers=bearer("alex"))
        assert answer.status_code == expected
        local_azure.entra.faults.clear()
        assert (await client.get("/api/user", headers=bearer("alex"))).status_code == 404


@pytest.mark.parametrize(("status", "expected"), [(500, ManagedIdentityUnavailable), (400, ManagedIdentityRefused)])
async def test_a_start_on_cosmos_without_a_token_says_what_is_wrong(
    serve: Serve, local_azure: LocalAzure, status: int, expected: type[Exception]
) -> None:
    local_azure.entra.faults.script("managed_identity_token", Fault(status=status, times=None))
    with pytest.raises(expected):
        async with serve("cosmos"):
            pytest.fail("It started.")


def test_the_credentials_in_use_are_told_in_plain_words(
    without_secrets: Callable[[str], Settings], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity = f"managed identity {MANAGED_IDENTITY.client_id}"
    assert list(credentials_in_use(without_secrets("sqlite"))) == [("ACS", identity)]
    assert list(credentials_in_use(without_secrets("cosmos"))) == [("ACS", identity), ("Cosmos DB", identity)]
    in_use = dict(credentials_in_use(without_secrets("graph")))
    assert in_use["on-behalf-of"] == f"{identity} as federated credential"
    monkeypatch.delenv("ENTRA_MANAGED_IDENTITY_CLIENT_ID")
    monkeypatch.delenv("ACS_ENDPOINT")
    monkeypatch.setenv("ACS_CONNECTION_STRING", "endpoint=https://x.communication.azure.com;accesskey=c2VjcmV0")
    certificate = write_certificate(tmp_path / "client.pem")
    monkeypatch.setenv("ENTRA_CLIENT_CERTIFICATE_PATH", str(certificate))
    assert dict(credentials_in_use(load_settings(None))) == {
        "ACS": "access key of ACS_CONNECTION_STRING",
        "on-behalf-of": f"client certificate {certificate}",
    }
    monkeypatch.delenv("ENTRA_CLIENT_CERTIFICATE_PATH")
    monkeypatch.setenv("ENTRA_CLIENT_SECRET", "hush")
    monkeypatch.setenv("STORAGE_BACKEND", "cosmos")
    monkeypatch.setenv("COSMOS_KEY", "aHVzaA==")
    in_use = dict(credentials_in_use(load_settings(None)))
    assert in_use["Cosmos DB"] == "account key COSMOS_KEY"
    assert "hush" not in str(in_use)


async def test_check_config_tells_the_credentials(local_azure: LocalAzure, tmp_path: Path) -> None:
    environment = environment_without_secrets(local_azure, tmp_path, "graph")
    status, out, _ = await finished(await acs_auth(environment, "check-config"))
    assert status == 0
    lines = out.splitlines()
    assert f"ACS credential: managed identity {MANAGED_IDENTITY.client_id}" in lines
    assert f"on-behalf-of credential: managed identity {MANAGED_IDENTITY.client_id} as federated credential" in lines


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"ACS_ENDPOINT": None}, "Set exactly one of ACS_CONNECTION_STRING and ACS_ENDPOINT."),
        (
            {"ACS_CONNECTION_STRING": "endpoint=https://x.communication.azure.com;accesskey=c2VjcmV0"},
            "Set exactly one of ACS_CONNECTION_STRING and ACS_ENDPOINT.",
        ),
        (
            {"ACS_ENDPOINT": "http://x.communication.azure.com"},
            "ACS_ENDPOINT: must be an ACS resource's https:// address without a path, such as "
            "https://NAME.communication.azure.com.",
        ),
        (
            {"ENTRA_MANAGED_IDENTITY_CLIENT_ID": None},
            "ACS_ENDPOINT needs ENTRA_MANAGED_IDENTITY_CLIENT_ID, the managed identity that ACS is called with.",
        ),
        (
            {
                "ENTRA_MANAGED_IDENTITY_CLIENT_ID": None,
                "STORAGE_BACKEND": "cosmos",
                "ACS_ENDPOINT": None,
                "ACS_CONNECTION_STRING": "endpoint=https://x.communication.azure.com;accesskey=c2VjcmV0",
            },
            "STORAGE_BACKEND=cosmos needs COSMOS_KEY or, better, ENTRA_MANAGED_IDENTITY_CLIENT_ID.",
        ),
    ],
)
def test_a_credential_that_is_missing_or_given_twice_is_a_fault(
    without_secrets: Callable[[str], Settings],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, str | None],
    fault: str,
) -> None:
    without_secrets("sqlite")
    for name, value in changes.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as caught:
        load_settings(None)
    assert caught.value.faults == [fault]


async def test_the_identitys_library_is_loaded_only_for_a_managed_identity(
    local_azure: LocalAzure, tmp_path: Path
) -> None:
    program = (
        "import asyncio, sys\n"
        "from quart_app.app import create_app\n"
        "from quart_app.settings import load_settings\n"
        "async def main():\n"
        "    async with create_app(load_settings(None)):\n"
        "        print('azure.identity' in sys.modules)\n"
        "asyncio.run(main())\n"
    )
    secret_free = environment_without_secrets(local_azure, tmp_path, "sqlite")
    with_key = {**secret_free, **local_azure.service_environment()}
    del with_key["ACS_ENDPOINT"]
    for environment, expected in ((secret_free, "True"), (with_key, "False")):
        _, out, _ = await finished(await python(environment, "-c", program))
        assert out.strip() == expected
