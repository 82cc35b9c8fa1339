"""`acs-auth doctor` finds what is wrong and names the remedy."""

import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from local_azure.certificates import LocalAuthority
from local_azure.entra.directory import API, HOME_TENANT, MANAGED_IDENTITY
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.port_choice import free_port
from quart_app.operations.diagnosis import DiagnosisOptions, FindingState, diagnose
from quart_app.settings import Settings
from storage.mapping import MappingStore
from tests.quart_app.cli.conftest import AcsAuth
from tests.support import fake_azure_cli
from tests.support.running_cosmos import running_cosmos
from tests.support.service_process import acs_auth as start
from tests.support.service_process import finished

Environment = dict[str, str | None]


@dataclass(frozen=True, slots=True)
class Scene:
    """What a seeded fault may change."""

    azure: LocalAzure
    environment: Environment
    directory: Path
    key: rsa.RSAPrivateKey


@dataclass(frozen=True, slots=True)
class Seeded:
    """A fault, and the check that must find it; what that says is in docs/commands.md."""

    name: str
    seed: Callable[[Scene], None]
    check: str


def changed(**changes: str | None) -> Callable[[Scene], None]:
    return lambda scene: scene.environment.update(changes)


def authority_unreachable(scene: Scene) -> None:
    scene.environment["ENTRA_AUTHORITY_HOST"] = f"https://localhost:{free_port()}"


def certificate(scene: Scene, valid: timedelta) -> Path:
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "acs-auth")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(scene.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + valid)
        .sign(scene.key, hashes.SHA256())
    )
    private = scene.key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = scene.directory / "client.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    scene.environment.update({"ENTRA_CLIENT_SECRET": None, "ENTRA_CLIENT_CERTIFICATE_PATH": str(path)})
    return path


def unknown_certificate(scene: Scene) -> None:
    certificate(scene, timedelta(days=100))


def other_acs_key(scene: Scene) -> None:
    scene.azure.acs.rotate_access_key()


def acs_unreachable(scene: Scene) -> None:
    given = str(scene.environment["ACS_CONNECTION_STRING"])
    scene.environment["ACS_CONNECTION_STRING"] = f"endpoint=https://localhost:{free_port()}/;{given.partition(';')[2]}"


def not_acs(scene: Scene) -> None:
    given = str(scene.environment["ACS_CONNECTION_STRING"])
    elsewhere = scene.environment["GRAPH_BASE_URL"]
    scene.environment["ACS_CONNECTION_STRING"] = f"endpoint={elsewhere}/;{given.partition(';')[2]}"
    scene.azure.graph.faults.script("*", Fault(status=404, times=None))


def clock_off(scene: Scene) -> None:
    elsewhen = format_datetime(datetime.now(UTC) + timedelta(minutes=10), usegmt=True)
    skewed = Fault(status=401, headers={"Date": elsewhen}, body={"error": {"code": "Denied"}}, times=None)
    scene.azure.acs.faults.script("*", skewed)


def cosmos(seed: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def on_cosmos(scene: Scene) -> None:
        scene.environment["STORAGE_BACKEND"] = "cosmos"
        seed(scene)

    return on_cosmos


def graph(seed: Callable[[Scene], None]) -> Callable[[Scene], None]:
    def on_graph(scene: Scene) -> None:
        scene.environment["STORAGE_BACKEND"] = "graph"
        seed(scene)

    return on_graph


def without_secrets(seed: Callable[[Scene], None] = lambda scene: None) -> Callable[[Scene], None]:
    """As deployed: keys are off, and everything is asked with the managed identity."""

    def secretless(scene: Scene) -> None:
        scene.environment.update(dict.fromkeys(("COSMOS_KEY", "ENTRA_CLIENT_SECRET", "ACS_CONNECTION_STRING")))
        scene.environment.update(scene.azure.service_environment(secrets=False))
        scene.environment["STORAGE_BACKEND"] = "cosmos"
        seed(scene)

    return secretless


def without_role(scene: Scene) -> None:
    scene.azure.cosmos.without_role.add(MANAGED_IDENTITY.object_id)


def without_acs_role(scene: Scene) -> None:
    denied = {"error": {"code": "Denied", "message": "Denied by the resource provider."}}
    scene.azure.acs.faults.script("issue_access_token", Fault(status=401, body=denied, times=None))


def answering(stand_in: str, operation: str, status: int) -> Callable[[Scene], None]:
    def seed(scene: Scene) -> None:
        getattr(scene.azure, stand_in).faults.script(operation, Fault(status=status, times=None))

    return seed


def elsewhere_than_in_azure(scene: Scene) -> None:
    """A laptop; nothing listens where a virtual machine would have its identity endpoint."""
    scene.environment.update(
        IDENTITY_ENDPOINT=None,
        IDENTITY_HEADER=None,
        AZURE_POD_IDENTITY_AUTHORITY_HOST=f"http://127.0.0.1:{free_port()}",
        PATH=str(scene.directory / "bin"),
    )


def signed_out(scene: Scene) -> None:
    elsewhere_than_in_azure(scene)
    fake_azure_cli.install(scene.directory / "bin", {})


def own_role_missing(scene: Scene) -> None:
    elsewhere_than_in_azure(scene)
    operator = "0f0f0f0f-0001-4a6b-8f21-6d0c3b9e4f0f"
    resources = ("https://communication.azure.com/", "https://localhost")
    tokens = {each: scene.azure.entra.managed_identity_token(each, oid=operator) for each in resources}
    fake_azure_cli.install(scene.directory / "bin", tokens)
    scene.azure.cosmos.without_role.add(operator)


def permission_missing(scene: Scene) -> None:
    denied = {"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."}}
    scene.azure.graph.faults.script("list_users", Fault(status=403, body=denied, times=None))


NOBODY = "11112222-bbbb-3333-cccc-4444dddd5555"
OTHER_KEY = "b3RoZXI="
SEEDED = [
    Seeded("the tenant is wrong", changed(ENTRA_TENANT_ID=NOBODY), "signing keys"),
    Seeded("the authority is wrong", authority_unreachable, "signing keys"),
    Seeded("Entra ID is busy", answering("entra", "openid_configuration_v2", 429), "signing keys"),
    Seeded("the client secret is wrong", changed(ENTRA_CLIENT_SECRET="x"), "Entra ID credential"),
    Seeded("the client id is wrong", changed(ENTRA_CLIENT_ID=NOBODY), "Entra ID credential"),
    Seeded("the certificate is not known", unknown_certificate, "Entra ID credential"),
    Seeded("the access key is wrong", other_acs_key, "ACS"),
    Seeded("ACS can't be reached", acs_unreachable, "connection to"),
    Seeded("the endpoint is not ACS", not_acs, "ACS"),
    Seeded("ACS is throttling", answering("acs", "issue_access_token", 429), "ACS"),
    Seeded("the clock is wrong", clock_off, "connection to"),
    Seeded("the account key is wrong", cosmos(changed(COSMOS_KEY=OTHER_KEY)), "mapping store"),
    Seeded("the container is missing", cosmos(changed(COSMOS_CONTAINER="none")), "mapping store"),
    Seeded("the managed identity lacks its role at ACS", without_secrets(without_acs_role), "ACS"),
    Seeded("the managed identity lacks its role at Cosmos DB", without_secrets(without_role), "mapping store"),
    Seeded(
        "the managed identity is not the workload's",
        without_secrets(changed(ENTRA_MANAGED_IDENTITY_CLIENT_ID=NOBODY)),
        "managed identity",
    ),
    Seeded(
        "the identity endpoint is down",
        without_secrets(answering("entra", "managed_identity_token", 503)),
        "managed identity",
    ),
    Seeded("you are not in Azure", without_secrets(elsewhere_than_in_azure), "managed identity"),
    Seeded("you are not signed in", without_secrets(signed_out), "your own sign-in"),
    Seeded("you lack a role", without_secrets(own_role_missing), "mapping store"),
    Seeded("the Graph permission is missing", graph(permission_missing), "Microsoft Graph as the application"),
    Seeded("the SQLite directory is missing", changed(SQLITE_PATH="/nowhere/mappings.sqlite"), "mapping store"),
]


@dataclass(frozen=True, slots=True)
class Row:
    """What the document says of a fault: the check, the doctor's sentence, its remedy's key words, the next command."""

    check: str
    sentence: str
    remedy: str
    command: str


def published() -> dict[str, Row]:
    """The table of the document, by fault."""
    text = (Path(__file__).parents[3] / "docs" / "commands.md").read_text()
    section = text.partition("\n### Faults and what to do\n")[2].partition("\n## ")[0]
    rows = [line.strip("|\n ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    return {name: Row(*cells) for name, *cells in rows if name != "Fault"}


PUBLISHED = published()


def fits(sentence: str, found: str) -> bool:
    """Whether a published sentence is what was found; `…` stands for names and numbers."""
    return re.search(re.escape(sentence).replace("…", ".+?"), found) is not None


@pytest.fixture
def scene(
    local_azure: LocalAzure, environment: Environment, tmp_path: Path, signing_keys: list[rsa.RSAPrivateKey]
) -> Scene:
    return Scene(local_azure, environment, tmp_path, signing_keys[-1])


@pytest.fixture
def elsewhere(state_directory: Path) -> Path:
    """Where another stand-in may keep its state, with certificates that are trusted."""
    directory = state_directory.parent / "elsewhere"
    shutil.copytree(state_directory, directory, ignore=shutil.ignore_patterns("*.sqlite*"))
    return directory


def about(findings: list[dict[str, Any]], check: str) -> str:
    """What is not in order about a check, with its remedies."""
    concerned = [
        each for each in findings if each["check"].startswith(check) and each["state"] in ("failed", "warning")
    ]
    return " ".join(f"{each['message']} {each['remedy']}" for each in concerned)


def test_the_document_tells_of_every_seeded_fault_and_what_to_type() -> None:
    assert list(PUBLISHED) == [seeded.name for seeded in SEEDED]
    for row in PUBLISHED.values():
        assert re.search(r"`(az|acs-auth|chronyc|mkdir) [^`]+`", row.command), row


@pytest.mark.parametrize("seeded", SEEDED, ids=lambda seeded: seeded.name)
async def test_each_seeded_fault_is_found_as_the_document_says(seeded: Seeded, scene: Scene, acs_auth: AcsAuth) -> None:
    row = PUBLISHED[seeded.name]
    seeded.seed(scene)
    result = await acs_auth("doctor", "--json")
    report = json.loads(result.stdout)
    found = about(report["findings"], seeded.check)
    assert row.check.startswith(seeded.check)
    assert fits(row.sentence, found), found
    assert fits(row.remedy, found), found
    if scene.environment.get("ACS_CONNECTION_STRING") is None:
        assert "connection string" not in result.stdout
    # What only the operator's commands need does not stop the service.
    assert (report["ok"], result.exit_code) == ((True, 0) if "as" in seeded.check.split() else (False, 1))


async def test_a_certificate_that_is_not_trusted_is_found(environment: Environment, tmp_path: Path) -> None:
    LocalAuthority(tmp_path / "other")
    variables = {name: str(value) for name, value in environment.items()}
    # A process of its own: which certificates are trusted is settled when it starts.
    process = await start({**variables, "SSL_CERT_FILE": str(tmp_path / "other" / "ca.pem")}, "doctor", "--json")
    status, out, _ = await finished(process)
    assert "SSL_CERT_FILE" in about(json.loads(out)["findings"], "connection to localhost")
    assert status == 1


async def test_a_container_with_another_partition_key_is_found(
    environment: Environment, acs_auth: AcsAuth, elsewhere: Path
) -> None:
    async with running_cosmos(elsewhere, partition_key_path="/user", consistency="Eventual") as account:
        environment |= {"STORAGE_BACKEND": "cosmos", **account.service_environment()}
        result = await acs_auth("doctor", "--json")
    assert result.exit_code == 1
    assert "create another container" in about(json.loads(result.stdout)["findings"], "mapping store")


async def test_weak_consistency_is_a_warning_and_no_failure(
    environment: Environment, acs_auth: AcsAuth, elsewhere: Path
) -> None:
    async with running_cosmos(elsewhere, consistency="Eventual") as account:
        environment |= {"STORAGE_BACKEND": "cosmos", **account.service_environment()}
        result = await acs_auth("doctor", "--json")
    assert result.exit_code == 0
    assert "Strong" in about(json.loads(result.stdout)["findings"], "mapping store")


@pytest.mark.parametrize("store", ["sqlite", "cosmos", "graph"])
async def test_nothing_is_wrong_with_the_stand_ins_and_nothing_is_written(
    store: str, local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    environment["STORAGE_BACKEND"] = store
    result = await acs_auth("doctor")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "Nothing is wrong." in result.stdout
    assert "failed" not in result.stdout
    assert local_azure.acs.all_identities() == []
    assert local_azure.cosmos.items() == []
    assert not (tmp_path / "mappings.sqlite").exists()


@pytest.mark.parametrize("store", ["sqlite", "cosmos"])
async def test_with_write_an_identity_and_a_mapping_are_made_and_deleted(
    store: str, local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["STORAGE_BACKEND"] = store
    result = await acs_auth("doctor", "--write")
    assert result.exit_code == 0
    assert "an identity was created and deleted" in result.stdout
    assert "a mapping was created, changed and deleted" in result.stdout
    assert len(local_azure.acs.all_identities()) == 1
    assert local_azure.acs.live_identities() == []
    assert local_azure.cosmos.items() == []


async def test_missing_consent_shows_with_a_users_token(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["STORAGE_BACKEND"] = "graph"
    token = local_azure.entra.access_token("alex")
    result = await acs_auth("doctor", "--user-token", "-", typed=token)
    assert result.exit_code == 0
    assert "may act for the user" in result.stdout
    local_azure.entra.conditions.remove_consent(local_azure.entra.users["alex"])
    result = await acs_auth("doctor", "--user-token", "-", typed=token)
    assert result.exit_code == 1
    assert "consent to it as an administrator" in result.stdout
    result = await acs_auth("doctor", "--user-token", "-", typed="no token")
    assert result.exit_code == 1
    assert "The service does not accept the token" in result.stdout


@pytest.mark.parametrize("store", ["sqlite", "cosmos", "graph"])
async def test_a_users_token_is_judged_by_the_services_rules_whatever_the_store(
    store: str, local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["STORAGE_BACKEND"] = store
    entra = local_azure.entra
    result = await acs_auth("doctor", "--user-token", "-", typed=entra.access_token("alex"))
    assert (result.exit_code, "access token: The service accepts it." in result.stdout) == (0, True)
    result = await acs_auth("doctor", "--user-token", "-", typed=entra.access_token("alex", aud="api://other"))
    assert result.exit_code == 1
    assert f'access token: aud: found "api://other"; expected one of {API.client_id}' in result.stdout
    result = await acs_auth("doctor", "--user-token", "-", typed="garbage")
    assert result.exit_code == 1
    assert "failed   access token: form: found 7 characters, 0 dots" in result.stdout


async def test_findings_hold_no_secret(local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth) -> None:
    environment |= {"STORAGE_BACKEND": "cosmos"}
    local_azure.acs.rotate_access_key()
    key = str(environment["ACS_CONNECTION_STRING"]).partition("accesskey=")[2]
    result = await acs_auth("doctor")
    assert result.exit_code == 1
    for secret in (key, str(API.secret), str(environment["COSMOS_KEY"])):
        assert secret not in result.output


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
async def test_a_directory_that_cannot_be_written_is_found(
    environment: Environment, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    environment["SQLITE_PATH"] = str(closed / "mappings.sqlite")
    result = await acs_auth("doctor")
    assert result.exit_code == 1
    assert "let this process write there" in result.stdout


async def test_another_issuer_than_entra_id_is_asked_for_its_keys(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    issuer = f"{local_azure.entra.url}/{HOME_TENANT.tenant_id}/v2.0"
    entra = [name for name in environment if name.startswith(("ENTRA_", "TEAMS_", "DOCS_"))]
    environment.update(dict.fromkeys(entra))
    environment.update(OIDC_ISSUER=issuer, OIDC_AUDIENCE="api://x", OIDC_REQUIRED_SCOPE="access")
    result = await acs_auth("doctor")
    assert result.exit_code == 0, result.output
    assert f"signing keys of {issuer}: Fetched." in result.stdout
    assert "Entra ID credential" not in result.stdout
    environment["OIDC_ISSUER"] = f"{local_azure.entra.url}/common/v2.0"  # whose document names the template instead
    result = await acs_auth("doctor")
    assert result.exit_code == 1
    assert "the document must name the issuer exactly" in result.stdout
    assert f"names the issuer '{local_azure.entra.url}/{{tenantid}}/v2.0', not the configured one" in result.stdout
    key_set = {"keys": [{"kty": "RSA", "kid": "x", "alg": "PS256"}, {"kty": "EC", "kid": "y"}]}
    local_azure.entra.faults.script("keys_v2", Fault(status=200, body=key_set, times=None))
    environment["OIDC_ISSUER"] = issuer
    result = await acs_auth("doctor")
    assert "it is for an algorithm other than RS256 (alg); it is not an RSA key (kty)" in result.stdout


async def test_on_a_terminal_findings_are_a_table_in_colours(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["FORCE_COLOR"] = "1"  # what makes rich take standard output for a terminal
    local_azure.acs.rotate_access_key()
    result = await acs_auth("doctor")
    assert result.exit_code == 1
    assert "\x1b[1;31mfailed" in result.stdout
    assert "→" in result.stdout


@pytest.mark.parametrize(("minutes", "state", "status"), [(0.5, "ok", 0), (2, "warning", 0), (10, "failed", 1)])
async def test_clocks_may_differ_as_far_as_the_upstreams_allow(
    minutes: float, state: str, status: int, local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    elsewhen = format_datetime(datetime.now(UTC) - timedelta(minutes=minutes), usegmt=True)
    # Only the plain request of the connection's check has no operation of its own.
    local_azure.acs.faults.script("unknown", Fault(status=404, headers={"Date": elsewhen}, times=None))
    result = await acs_auth("doctor", "--json")
    states = [each["state"] for each in json.loads(result.stdout)["findings"] if "connection" in each["check"]]
    assert (sorted(states), result.exit_code) == (sorted(["ok", state]), status)


async def test_mappings_without_a_seal_that_are_accepted_are_a_warning(
    environment: Environment, acs_auth: AcsAuth
) -> None:
    until = datetime.now(UTC).date() + timedelta(days=30)
    environment |= {"STORAGE_BACKEND": "graph", "GRAPH_ACCEPT_UNSEALED_UNTIL": until.isoformat()}
    environment["ACS_TOKEN_SCOPES"] = "voip"
    result = await acs_auth("doctor", "--json")
    warnings = [each for each in json.loads(result.stdout)["findings"] if each["state"] == "warning"]
    assert [each["check"] for each in warnings] == ["mapping store (graph)"]
    assert f"Until {until} mappings without a seal are accepted" in warnings[0]["message"]
    assert "GRAPH_ACCEPT_UNSEALED_UNTIL" in warnings[0]["remedy"]


@pytest.mark.parametrize(
    ("scopes", "told"),
    [("chat,voip", 1), ("chat.join", 1), ("voip chat.join.limited", 1), ("voip", 0), ("voip.join", 0)],
)
async def test_the_retirement_of_chat_is_one_warning_where_tokens_are_good_for_it(
    environment: Environment, acs_auth: AcsAuth, scopes: str, told: int
) -> None:
    environment["ACS_TOKEN_SCOPES"] = scopes
    result = await acs_auth("doctor", "--json")
    assert result.exit_code == 0
    found = [each for each in json.loads(result.stdout)["findings"] if each["check"] == "ACS retirement"]
    assert [each["state"] for each in found] == ["warning"] * told
    for each in found:
        assert "2028-09-30" in each["message"]
        assert "docs/retirement.md" in each["remedy"]


async def test_an_expiring_certificate_is_a_warning_with_its_last_day(scene: Scene, acs_auth: AcsAuth) -> None:
    path = certificate(scene, timedelta(days=10))
    scene.azure.entra.clients.register_certificate(API.client_id, path.read_bytes())
    result = await acs_auth("doctor", "--json")
    assert result.exit_code == 0
    last = (datetime.now(UTC) + timedelta(days=10)).date()
    found = about(json.loads(result.stdout)["findings"], "Entra ID credential")
    assert found.startswith(f"Accepted, but the client certificate expires on {last}. Create a new certificate, ")


async def test_a_check_that_gets_no_answer_in_time_says_so_and_holds_up_nothing(settings: Settings) -> None:
    findings = await diagnose(settings, DiagnosisOptions(patience=0))
    unanswered = [finding for finding in findings if finding.check.startswith("connection to")]
    assert {(each.state, each.message, each.remedy) for each in unanswered} == {
        (FindingState.FAILED, "No answer within 0 s.", "Check network and firewall.")
    }
    assert [each.state for each in findings if each.check == "ACS retirement"] == [FindingState.WARNING]


async def test_a_name_that_nobody_knows_is_told_apart_from_a_service_that_is_down(settings: Settings) -> None:
    name = ".".join(["a" * 60] * 5)  # longer than any name may be, so no name server is asked
    entra = settings.entra.model_copy(update={"authority_host": f"https://{name}"})
    findings = await diagnose(replace(settings, entra=entra), DiagnosisOptions())
    (unknown,) = [each for each in findings if each.check == f"connection to {name}"]
    assert (unknown.state, unknown.message) == (FindingState.FAILED, "Its name can't be resolved.")
    assert unknown.remedy == "Check ENTRA_AUTHORITY_HOST, and this machine's name resolution."


async def test_an_answer_without_a_date_says_nothing_about_the_clocks(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    local_azure.acs.faults.script("unknown", Fault(status=404, headers={"Date": ""}, times=None))
    result = await acs_auth("doctor")
    assert result.exit_code == 0
    assert "Reachable, certificate trusted; its answer has no date." in result.stdout


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (
            200,
            {"token": "x", "expiresOn": "2030-01-01T00:00:00.0000000+00:00"},
            "It issued a token for an identity of no resource. Is this really ACS?",
        ),
        (
            418,
            {"error": {"code": "Teapot", "message": "x"}},
            "It gave an unexpected answer (status 418). Check that the endpoint in ACS_CONNECTION_ST",
        ),
    ],
    ids=["a token for nobody's identity", "a status that ACS never gives"],
)
async def test_what_answers_as_acs_never_does_is_not_taken_for_acs(
    local_azure: LocalAzure,
    environment: Environment,
    acs_auth: AcsAuth,
    status: int,
    body: dict[str, Any],
    told: str,
) -> None:
    local_azure.acs.faults.script("issue_access_token", Fault(status=status, body=body, times=None))
    result = await acs_auth("doctor", "--json")
    assert result.exit_code == 1
    assert about(json.loads(result.stdout)["findings"], "ACS").startswith(told)


async def test_what_cosmos_db_answers_is_told_with_what_its_support_finds_it_by(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["STORAGE_BACKEND"] = "cosmos"
    odd = Fault(status=418, headers={"x-ms-activity-id": "0f0f0f0f-0001"}, times=None)
    local_azure.cosmos.faults.script("read_item", odd)
    result = await acs_auth("doctor", "--json")
    assert result.exit_code == 1
    found = about(json.loads(result.stdout)["findings"], "mapping store")
    assert found.startswith("The mapping store gave an unexpected answer (418")
    assert "0f0f0f0f-0001" in found


async def test_a_file_that_is_there_is_read_and_not_written(
    sqlite_store: MappingStore, environment: Environment, acs_auth: AcsAuth
) -> None:
    result = await acs_auth("doctor")
    assert result.exit_code == 0
    assert "mapping store (sqlite): It answers reads. With --write, a mapping is created as well." in result.stdout
    assert [each async for each in sqlite_store.mappings()] == []


IDENTITY_USES = [
    ("sqlite", ("ENTRA_CLIENT_SECRET", "COSMOS_KEY"), "https://communication.azure.com/"),
    ("cosmos", ("ENTRA_CLIENT_SECRET", "ACS_CONNECTION_STRING"), "https://localhost"),
    ("graph", ("COSMOS_KEY", "ACS_CONNECTION_STRING"), "api://AzureADTokenExchange"),
]


@pytest.mark.parametrize(("store", "kept", "asked_for"), IDENTITY_USES)
async def test_the_managed_identity_is_asked_for_what_it_is_used_for_and_for_nothing_else(
    store: str,
    kept: tuple[str, ...],
    asked_for: str,
    local_azure: LocalAzure,
    environment: Environment,
    acs_auth: AcsAuth,
) -> None:
    secrets = {name: environment[name] for name in kept}
    environment.update(dict.fromkeys(("COSMOS_KEY", "ENTRA_CLIENT_SECRET", "ACS_CONNECTION_STRING")))
    environment.update(local_azure.service_environment(secrets=False), STORAGE_BACKEND=store, **secrets)
    if "ACS_CONNECTION_STRING" in kept:
        environment["ACS_ENDPOINT"] = None
    result = await acs_auth("doctor")
    assert result.exit_code == 0, result.output
    calls = [call.path for call in local_azure.entra.faults.calls if call.operation == "managed_identity_token"]
    assert {parse_qs(urlsplit(path).query)["resource"][0] for path in calls} == {asked_for}
    local_azure.entra.faults.script(
        "managed_identity_token", Fault(status=429, headers={"Retry-After": "0"}, times=None)
    )
    busy = await acs_auth("doctor", "--json")
    assert busy.exit_code == 1
    found = about(json.loads(busy.stdout)["findings"], "managed identity")
    assert found == "The managed identity endpoint is throttling requests. Wait a minute and run this again."


async def test_a_sign_in_of_ones_own_that_nothing_is_asked_of_is_not_said_to_give_tokens(
    scene: Scene, acs_auth: AcsAuth
) -> None:
    """With Microsoft Graph and a key for ACS, only the service itself needs the managed identity."""
    kept = scene.environment["ACS_CONNECTION_STRING"]
    graph(without_secrets(signed_out))(scene)
    scene.environment.update(STORAGE_BACKEND="graph", ACS_CONNECTION_STRING=kept, ACS_ENDPOINT=None)
    result = await acs_auth("doctor", "--json")
    findings = {each["check"]: each for each in json.loads(result.stdout)["findings"]}
    assert "your own sign-in" not in findings
    assert findings["Microsoft Graph as the application"]["state"] == "skipped"
    assert findings[f"managed identity {MANAGED_IDENTITY.client_id}"]["state"] == "skipped"


EXPIRED = {
    "error": "invalid_grant",
    "error_description": "AADSTS500133: Assertion is not within its valid time range.",
    "error_codes": [500133],
}


@pytest.mark.parametrize(
    ("stand_in", "operation", "fault", "sentence"),
    [
        (
            "entra",
            "token",
            Fault(status=400, body=EXPIRED, times=None),
            "The caller's token was refused (AADSTS500133). Get a fresh one for this API: acs-auth token",
        ),
        (
            "entra",
            "token",
            Fault(status=429, headers={"Retry-After": "0"}, times=None),
            "Entra ID is throttling requests. ",
        ),
        (
            "entra",
            "token",
            Fault(reset=True, times=None),
            "Entra ID is unavailable. Check ENTRA_AUTHORITY_HOST and the network.",
        ),
        (
            "graph",
            "get_me",
            Fault(status=418, body={"error": {"code": "Teapot", "message": "x"}}, times=None),
            "The mapping store gave an unexpected answer (418 Teapot). ",
        ),
    ],
    ids=["the token is refused", "Entra ID is busy", "Entra ID does not answer", "Microsoft Graph is odd"],
)
async def test_what_keeps_the_service_from_acting_for_a_user_is_told(
    stand_in: str,
    operation: str,
    fault: Fault,
    sentence: str,
    local_azure: LocalAzure,
    environment: Environment,
    acs_auth: AcsAuth,
) -> None:
    environment["STORAGE_BACKEND"] = "graph"
    getattr(local_azure, stand_in).faults.script(operation, fault)
    token = local_azure.entra.access_token("alex")
    result = await acs_auth("doctor", "--json", "--user-token", "-", typed=token)
    assert result.exit_code == 1
    found = about(json.loads(result.stdout)["findings"], "Microsoft Graph on behalf of a user")
    assert found.startswith(sentence)
