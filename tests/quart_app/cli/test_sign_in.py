"""Commands elsewhere than in the service's container act for their operator's own sign-in; the service never does."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import jwt
import pytest
from azure.core.exceptions import ServiceRequestError
from azure.identity import CredentialUnavailableError

from local_azure.entra.directory import API, DAEMON, HOME_TENANT, MANAGED_IDENTITY
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.port_choice import free_port
from quart_app.app import create_app
from quart_app.operations.sign_in import (
    OperatorSignIn,
    SignInError,
    SignInRefused,
    SignInUnavailable,
    _of_cli,
    _of_registration,
    chosen,
)
from quart_app.settings import load_settings
from storage.mapping import MappingStore, UserKey
from tests.quart_app.cli.conftest import AcsAuth
from tests.support import fake_azure_cli
from tests.support.fake_azure_cli import FakeAzureCli

Environment = dict[str, str | None]

OPERATOR = {"oid": "0f0f0f0f-0001-4a6b-8f21-6d0c3b9e4f0f", "appid": "04b07795-8ddb-461a-bbee-02f9e1bf7b46"}
"""An operator who signed in with the Azure CLI."""

ACS, COSMOS = "https://communication.azure.com/", "https://localhost"


@pytest.fixture
def elsewhere(local_azure: LocalAzure, environment: Environment, tmp_path: Path) -> Environment:
    """The settings of a service without secrets, on a machine that has no managed identity and no sign-in either."""
    (tmp_path / "empty").mkdir()
    for name in ("ENTRA_CLIENT_SECRET", "ACS_CONNECTION_STRING", "COSMOS_KEY"):
        environment[name] = None
    environment.update(local_azure.service_environment(secrets=False))
    environment.update(
        IDENTITY_ENDPOINT=None,
        IDENTITY_HEADER=None,
        AZURE_POD_IDENTITY_AUTHORITY_HOST=f"http://127.0.0.1:{free_port()}",  # in the place of a virtual machine's
        PATH=str(tmp_path / "empty"),
        STORAGE_BACKEND="cosmos",
    )
    return environment


@pytest.fixture
def az(local_azure: LocalAzure, elsewhere: Environment, tmp_path: Path) -> FakeAzureCli:
    """The Azure CLI, with an operator who is signed in."""
    tokens = {resource: local_azure.entra.managed_identity_token(resource, **OPERATOR) for resource in (ACS, COSMOS)}
    installed = fake_azure_cli.install(tmp_path / "bin", tokens)
    elsewhere["PATH"] = str(installed.directory)
    return installed


def callers(local_azure: LocalAzure) -> set[str]:
    """Which application the tokens name that ACS was called with."""
    given = [call.headers.get("Authorization", "") for call in local_azure.acs.faults.calls]
    sent = {header.removeprefix("Bearer ") for header in given if header}
    return {jwt.decode(token, options={"verify_signature": False})["appid"] for token in sent}


PAIR = {"AZURE_CLIENT_ID": "c", "AZURE_TENANT_ID": "t"}
FILE, SECRET = {"AZURE_FEDERATED_TOKEN_FILE": "f"}, {"AZURE_CLIENT_SECRET": "s"}
HERE = {"IDENTITY_ENDPOINT": "http://localhost/msi"}


@pytest.mark.parametrize(
    ("environment", "az_installed", "expected"),
    [
        ({}, False, OperatorSignIn.MANAGED_IDENTITY),
        ({}, True, OperatorSignIn.AZURE_CLI),
        (HERE, True, OperatorSignIn.MANAGED_IDENTITY),
        ({**HERE, **PAIR, **SECRET}, True, OperatorSignIn.MANAGED_IDENTITY),
        ({**PAIR, **SECRET}, True, OperatorSignIn.ENVIRONMENT),
        ({**PAIR, "AZURE_CLIENT_CERTIFICATE_PATH": "x"}, True, OperatorSignIn.ENVIRONMENT),
        ({**PAIR, **FILE, **SECRET}, True, OperatorSignIn.WORKLOAD_IDENTITY),
        (PAIR, True, OperatorSignIn.AZURE_CLI),
        (SECRET, False, OperatorSignIn.MANAGED_IDENTITY),
        ({**HERE, "AZURE_TOKEN_CREDENTIALS": "AzureCliCredential"}, False, OperatorSignIn.AZURE_CLI),
        ({"AZURE_TOKEN_CREDENTIALS": "managedidentitycredential"}, True, OperatorSignIn.MANAGED_IDENTITY),
        ({**PAIR, **SECRET, "AZURE_TOKEN_CREDENTIALS": "dev"}, True, OperatorSignIn.AZURE_CLI),
        ({"AZURE_TOKEN_CREDENTIALS": "prod"}, True, OperatorSignIn.MANAGED_IDENTITY),
        ({**PAIR, **SECRET, "AZURE_TOKEN_CREDENTIALS": "prod"}, True, OperatorSignIn.ENVIRONMENT),
    ],
)
def test_who_is_asked_for_tokens_depends_on_what_is_there_and_on_nothing_that_fails(
    environment: Mapping[str, str], az_installed: bool, expected: OperatorSignIn, tmp_path: Path
) -> None:
    path = tmp_path / "bin"
    if az_installed:
        fake_azure_cli.install(path, {})
    assert chosen({**environment, "PATH": str(path)}) is expected


def test_an_unknown_choice_is_refused_with_the_known_ones() -> None:
    with pytest.raises(SignInRefused) as caught:
        chosen({"AZURE_TOKEN_CREDENTIALS": "VisualStudioCodeCredential"})
    assert caught.value.cause is not None
    assert "AzureCliCredential" in str(caught.value.cause.advice)


async def test_the_azure_cli_signs_a_command_in_once_for_each_service_and_asks_nobody(
    local_azure: LocalAzure, az: FakeAzureCli, acs_auth: AcsAuth
) -> None:
    result = await acs_auth("doctor", "--write", "--json", typed="x\n")
    assert result.exit_code == 0, result.output
    states = {each["check"]: (each["state"], each["message"]) for each in json.loads(result.stdout)["findings"]}
    assert states["your own sign-in"] == ("ok", "Tokens come from your sign-in with the Azure CLI.")
    identity = states[f"managed identity {MANAGED_IDENTITY.client_id}"]
    assert identity[0] == "skipped"
    assert callers(local_azure) == {OPERATOR["appid"]}
    assert all(call.startswith("account get-access-token") for call in az.calls())
    assert not any(call.endswith("typed") for call in az.calls())


async def test_identities_of_another_resource_cost_no_new_token(
    local_azure: LocalAzure, az: FakeAzureCli, elsewhere: Environment, acs_auth: AcsAuth, sqlite_store: MappingStore
) -> None:
    """azure-core drops its token at every 401, and the Azure CLI takes a second for each."""
    elsewhere["STORAGE_BACKEND"] = "sqlite"
    for number in range(5):
        await sqlite_store.create(UserKey("tenant", str(number)), local_azure.acs.foreign_id())
    result = await acs_auth("reconcile", "--json")
    assert json.loads(result.stdout)["other_resource"] == 5
    assert len(az.calls()) == 1


async def test_a_registration_in_the_environment_signs_a_command_in(
    local_azure: LocalAzure, elsewhere: Environment, acs_auth: AcsAuth
) -> None:
    elsewhere.update(
        AZURE_TENANT_ID=HOME_TENANT.tenant_id, AZURE_CLIENT_ID=DAEMON.client_id, AZURE_CLIENT_SECRET=DAEMON.secret
    )
    result = await acs_auth("reconcile", "--json")
    assert (result.exit_code, json.loads(result.stdout)["clean"]) == (0, True)
    assert (await acs_auth("doctor", "--write")).exit_code == 0
    assert callers(local_azure) == {DAEMON.client_id}


async def test_a_workload_identity_signs_a_command_in(
    local_azure: LocalAzure, elsewhere: Environment, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    (tmp_path / "token").write_text(local_azure.entra.managed_identity_token())
    elsewhere.update(
        AZURE_TENANT_ID=HOME_TENANT.tenant_id,
        AZURE_CLIENT_ID=API.client_id,
        AZURE_FEDERATED_TOKEN_FILE=str(tmp_path / "token"),
    )
    result = await acs_auth("doctor")
    assert result.exit_code == 0, result.output
    assert "Tokens come from your workload identity" in result.stdout
    assert callers(local_azure) == {API.client_id}


def nobody(environment: Environment, directory: Path) -> None:
    """Nothing is there: no platform, no Azure CLI."""


def not_signed_in(environment: Environment, directory: Path) -> None:
    environment["PATH"] = str(fake_azure_cli.install(directory / "bin", {}).directory)


def expired(environment: Environment, directory: Path) -> None:
    text = "ERROR: AADSTS700082: The refresh token has expired. Someone someone@example.com. Please run: az login"
    environment["PATH"] = str(fake_azure_cli.install(directory / "bin", {}, text).directory)


def odd_answer(environment: Environment, directory: Path) -> None:
    bin_directory = fake_azure_cli.install(directory / "bin", {}).directory
    (bin_directory / "az").write_text("#!/bin/sh\necho 'secret eyJhbGciOiJSUzI1NiJ9'\n")
    environment["PATH"] = str(bin_directory)


def wrong_secret(environment: Environment, directory: Path) -> None:
    environment.update(
        AZURE_TENANT_ID=HOME_TENANT.tenant_id, AZURE_CLIENT_ID=DAEMON.client_id, AZURE_CLIENT_SECRET="wrong"
    )


def no_token_file(environment: Environment, directory: Path) -> None:
    environment.update(
        AZURE_TENANT_ID=HOME_TENANT.tenant_id,
        AZURE_CLIENT_ID=DAEMON.client_id,
        AZURE_FEDERATED_TOKEN_FILE=str(directory / "missing"),
    )


def no_certificate(environment: Environment, directory: Path) -> None:
    environment.update(
        AZURE_TENANT_ID=HOME_TENANT.tenant_id,
        AZURE_CLIENT_ID=DAEMON.client_id,
        AZURE_CLIENT_CERTIFICATE_PATH=str(directory / "missing.pem"),
    )


def unknown_choice(environment: Environment, directory: Path) -> None:
    environment["AZURE_TOKEN_CREDENTIALS"] = "VisualStudioCodeCredential"


def chosen_and_missing(environment: Environment, directory: Path) -> None:
    environment["AZURE_TOKEN_CREDENTIALS"] = "AzureCliCredential"


def graph(environment: Environment, directory: Path) -> None:
    not_signed_in(environment, directory)
    environment["STORAGE_BACKEND"] = "graph"


@pytest.mark.parametrize(
    ("spoil", "sentence", "remedy"),
    [
        (
            nobody,
            f"The managed identity {MANAGED_IDENTITY.client_id} issues no tokens here.",
            "or sign in yourself: az",
        ),
        (not_signed_in, "The Azure CLI issued no token.", "Sign in with az login"),
        (expired, "The Azure CLI issued no token.", "Sign in with az login"),
        (odd_answer, "The Azure CLI issued no token.", "Sign in with az login"),
        (wrong_secret, "The registration that AZURE_CLIENT_ID names gets no token (AADSTS", "Check AZURE_TENANT_ID"),
        (no_token_file, "The registration that AZURE_CLIENT_ID names gets no token.", "AZURE_FEDERATED_TOKEN_FILE"),
        (no_certificate, "The registration that AZURE_CLIENT_ID names gets no token.", "AZURE_CLIENT_CERTIFICATE_PATH"),
        (unknown_choice, "AZURE_TOKEN_CREDENTIALS names no sign-in", "Set it to one of ManagedIdentityCredential"),
        (chosen_and_missing, "The Azure CLI is not installed here.", "or sign in yourself: az login"),
        (graph, "With Microsoft Graph the commands act as the API's registration", "Run this in the service's cont"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
async def test_without_a_token_the_sentence_says_how_to_get_one(
    elsewhere: Environment,
    acs_auth: AcsAuth,
    tmp_path: Path,
    spoil: Callable[[Environment, Path], None],
    sentence: str,
    remedy: str,
) -> None:
    spoil(elsewhere, tmp_path)
    result = await acs_auth("reconcile", "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["upstream"]) == (1, "sign_in")
    assert sentence in document["error"]
    assert remedy in document["error"]
    assert document["error"] in result.stderr
    for secret in ("eyJ", "someone@", "(403", "connection string"):
        assert secret not in result.output
    doctor = await acs_auth("doctor")
    assert doctor.exit_code == 1
    assert sentence in doctor.stdout
    assert "(403" not in doctor.stdout
    assert "connection string" not in doctor.stdout


async def test_entra_id_in_trouble_passes_and_is_told_apart(
    local_azure: LocalAzure, elsewhere: Environment, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    wrong_secret(elsewhere, tmp_path)
    local_azure.entra.faults.script("token", Fault(reset=True, times=None))
    result = await acs_auth("doctor")
    assert result.exit_code == 1
    assert "Entra ID can't be reached for a token of your own sign-in." in result.stdout


@pytest.mark.parametrize(
    ("raised", "meant"),
    [
        (_of_cli(CredentialUnavailableError("Timed out waiting for Azure CLI")), SignInUnavailable),
        (_of_cli(CredentialUnavailableError("Azure CLI not found on path")), SignInRefused),
        (_of_cli(RuntimeError("AADSTS50076 someone")), SignInRefused),
        (_of_registration(ServiceRequestError("x")), SignInUnavailable),
        (_of_registration(KeyError("x")), SignInRefused),
    ],
)
def test_only_what_passes_is_repeated(raised: SignInError, meant: type[SignInError]) -> None:
    assert type(raised) is meant
    assert raised.repeatable == (meant is SignInUnavailable)
    assert "someone" not in str(raised)


async def test_the_service_itself_never_asks_the_azure_cli(
    az: FakeAzureCli, elsewhere: Environment, monkeypatch: pytest.MonkeyPatch, local_azure: LocalAzure
) -> None:
    elsewhere["STORAGE_BACKEND"] = "sqlite"
    for name, value in elsewhere.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    async with create_app(load_settings(None)) as app:
        token = local_azure.entra.access_token("alex")
        answer = await app.test_client().post("/api/user", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 503
    assert az.calls() == []
