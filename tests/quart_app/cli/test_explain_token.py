"""`acs-auth explain-token` says what the service says, and what is wrong, without the token and without the user."""

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from local_azure.entra.directory import API, BROWSER, HOME_TENANT, OTHER_TENANT, USERS
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from tests.quart_app.cli.conftest import AcsAuth
from tests.support.oidc_issuer import OidcIssuer, running_oidc_issuer
from tests.support.service_process import acs_auth as start
from tests.support.service_process import acs_auth_at_terminal, environment_for

Environment = dict[str, str | None]


@pytest.mark.parametrize("store", ["sqlite", "cosmos", "graph"])
async def test_a_good_token_is_accepted_whatever_the_store(
    store: str, local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["STORAGE_BACKEND"] = store
    for version in (1, 2):
        token = local_azure.entra.access_token("alex", version=version)
        result = await acs_auth("explain-token", typed=f"  Bearer {token}\n")
        assert (result.exit_code, result.stderr) == (0, "")
        assert "The service accepts this token." in result.stdout
        assert "refused" not in result.stdout
        assert token.split(".")[1] not in result.stdout
        assert USERS["alex"].object_id not in result.stdout


async def test_each_rule_is_told_with_what_is_found_what_is_expected_and_what_to_do(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["ENTRA_ALLOWED_CLIENTS"] = API.client_id
    environment["ENTRA_ALLOW_GUESTS"] = "false"
    token = local_azure.entra.access_token(
        "alex", aud=BROWSER.client_id, exp=1_700_000_000, scope="other", cnf={"jkt": "x"}, acct=1
    )
    result = await acs_auth("explain-token", "--json", typed=token)
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert (report["accepted"], report["reason"]) == (False, "expired")  # what the service meets first
    refused = {each["member"]: each for each in report["judged"] if each["verdict"] == "refused"}
    assert {name: each["reason"] for name, each in refused.items()} == {
        "exp": "expired",
        "aud": "audience",
        "cnf, token_use, typ, token_type, tokenName": "proof_missing",
        "azp, appid": "client",
        "acct": "guest",
        "scp": "scope",
    }
    assert refused["aud"]["found"] == f'"{BROWSER.client_id}"'
    assert API.client_id in refused["aud"]["expected"]
    assert refused["exp"]["found"] == "1700000000 (2023-11-14 22:13:20 UTC)"
    assert "ENTRA_ALLOWED_CLIENTS" in refused["azp, appid"]["remedy"]
    assert "optional claim acct" in refused["acct"]["remedy"]
    assert next(each for each in report["judged"] if each["member"] == "signature")["verdict"] == "ok"


@pytest.mark.parametrize("garbage", ["garbage", "", "a.b.c", "\u200b", "eyJhbGciOiJub25lIn0.e30.", "x" * 100_000])
async def test_what_is_no_token_is_told_so(garbage: str, environment: Environment, acs_auth: AcsAuth) -> None:
    result = await acs_auth("explain-token", typed=garbage)
    assert (result.exit_code, result.stderr) == (1, "")
    assert "The service refuses this token. Reason: " in result.stdout


async def test_while_the_keys_cannot_be_fetched_everything_but_the_signature_is_judged(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    local_azure.entra.faults.script("*", Fault(status=503, times=None))
    token = local_azure.entra.access_token("nestor", aud=API.client_id)
    result = await acs_auth("explain-token", typed=token)
    assert result.exit_code == 1
    assert "unknown  signature" in result.stdout
    assert "can't tell" in result.stdout
    assert f'refused  tid: found "{OTHER_TENANT.tenant_id}"; expected a tenant that may call' in result.stdout
    assert HOME_TENANT.tenant_id in result.stdout


async def test_the_token_is_no_argument(environment: Environment, acs_auth: AcsAuth) -> None:
    result = await acs_auth("explain-token", "eyJhbGciOiJub25lIn0.e30.")
    assert result.exit_code == 2


async def test_it_works_as_a_process_that_reads_a_pipe(local_azure: LocalAzure, tmp_path: Path) -> None:
    process = await start(environment_for(local_azure, tmp_path), "explain-token", stdin=True)
    out, err = await process.communicate(b"\xff\xfe")
    assert (process.returncode, err) == (1, b"")
    assert b"Reason: malformed." in out


async def test_at_a_terminal_it_says_how_to_give_it_a_token(local_azure: LocalAzure, tmp_path: Path) -> None:
    """A terminal would show the token, and cut it off."""
    typed = "x\n\x04"  # a line, and the end of the input
    status, out, err = await acs_auth_at_terminal(environment_for(local_azure, tmp_path), typed, "explain-token")
    assert (status, out) == (2, "")
    assert "Pipe the token in, for example: acs-auth explain-token < FILE" in " ".join(err.split())


async def test_on_a_terminal_the_rules_are_a_table(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["FORCE_COLOR"] = "1"  # what makes rich take standard output for a terminal
    result = await acs_auth("explain-token", typed=local_azure.entra.access_token("alex", exp=1))
    assert "\x1b[1;31mrefused" in result.stdout
    assert "→" in result.stdout


@pytest.fixture
async def issuer(
    environment: Environment, state_directory: Path, signing_keys: list[rsa.RSAPrivateKey]
) -> AsyncIterator[OidcIssuer]:
    """Another issuer, as the settings name it."""
    claims = {"aud": "api", "sub": "user-1", "scope": "access"}
    async with running_oidc_issuer(state_directory, signing_keys[0], claims) as running:
        environment.update({name: None for name in environment if name.startswith(("ENTRA_", "TEAMS_", "DOCS_"))})
        environment.update(OIDC_ISSUER=running.issuer, OIDC_AUDIENCE="api", OIDC_REQUIRED_SCOPE="access")
        yield running


OIDC: dict[str, tuple[dict[str, Any], str]] = {
    "good": ({}, ""),
    "another issuer": ({"iss": "https://evil.example"}, "issuer"),
    "another audience": ({"aud": "other"}, "audience"),
    "B2C's constant subject": ({"sub": "Not supported currently. Use oid claim."}, "subject"),
    "a machine": ({"gty": ["client_credentials"]}, "application_token"),
    "an id token": ({"scope": None}, "not_an_access_token"),
    "another scope": ({"scope": "other"}, "scope"),
    "the future": ({"nbf": int(time.time()) + 7200}, "not_yet_valid"),
}


@pytest.mark.parametrize("case", OIDC)
async def test_tokens_of_another_issuer_are_explained_too(issuer: OidcIssuer, acs_auth: AcsAuth, case: str) -> None:
    claims, expected = OIDC[case]
    result = await acs_auth("explain-token", "--json", typed=issuer.token(**claims))
    report = json.loads(result.stdout)
    assert (result.exit_code, report["reason"] or "") == ((1, expected) if expected else (0, ""))
    assert "user-1" not in result.stdout
    assert {each["reason"] for each in report["judged"] if each["reason"]} == ({expected} if expected else set())
