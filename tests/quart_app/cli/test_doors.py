"""The commands where users of Entra ID and those of another issuer call: both doors are told, judged and asked."""

import asyncio
import json
from pathlib import Path

import pytest

from local_azure.entra.directory import COMMAND_LINE, HOME_TENANT, OTHER_TENANT
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from tests.quart_app.cli.conftest import AcsAuth
from tests.support.service_process import acs_auth as start
from tests.support.service_process import finished

Environment = dict[str, str | None]


@pytest.fixture
def environment(environment: Environment, local_azure: LocalAzure) -> Environment:
    environment.update(local_azure.entra.oidc_issuer.service_environment())
    return environment


async def test_check_config_tells_whose_tokens_are_taken_and_what_they_may_get(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["OIDC_ACS_TOKEN_SCOPES"] = "voip.join"
    told = json.loads((await acs_auth("check-config", "--json")).stdout)
    assert f"users of Microsoft Entra ID, tenant {HOME_TENANT.tenant_id}" in told["callers"]
    assert f"; and users of {local_azure.entra.oidc_issuer.issuer}, known by the claim sub" in told["callers"]
    assert told["settings"]["OIDC_ACS_TOKEN_SCOPES"] == "voip.join"
    assert told["settings"]["ACS_TOKEN_SCOPES"] == "chat,voip"
    del environment["OIDC_ACS_TOKEN_SCOPES"]
    told = json.loads((await acs_auth("check-config", "--json")).stdout)
    assert told["settings"]["OIDC_ACS_TOKEN_SCOPES"] == "chat,voip"


async def test_doctor_looks_at_both_issuers_and_says_which_is_down(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    issuer = local_azure.entra.oidc_issuer.issuer
    result = await acs_auth("doctor")
    assert result.exit_code == 0, result.output
    for found in (f"signing keys of {HOME_TENANT.tenant_id}: Fetched.", f"signing keys of {issuer}: Fetched."):
        assert found in result.stdout
    local_azure.entra.faults.script("oidc_configuration", Fault(status=503, times=None))
    result = await acs_auth("doctor")
    assert result.exit_code == 1
    assert f"failed   signing keys of {issuer}: The issuer answers 503" in result.stdout
    assert f"signing keys of {HOME_TENANT.tenant_id}: Fetched." in result.stdout


async def test_a_token_is_explained_by_the_door_whose_issuer_it_names(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    entra, issuer = local_azure.entra, local_azure.entra.oidc_issuer
    for token, door, reason in (
        (entra.access_token("alex"), "entra", None),
        (issuer.access_token("alex"), "oidc", None),
        (issuer.access_token("alex", aud="other"), "oidc", "audience"),
        (issuer.access_token("alex", iss=f"{issuer.issuer}/"), "entra", "key_unknown"),
    ):
        explained = json.loads((await acs_auth("explain-token", "--json", typed=token)).stdout)
        choice = explained["judged"][0]
        assert (choice["member"], choice["found"].partition(",")[0], explained["reason"]) == ("door", door, reason)
        assert choice["expected"] == f"oidc where iss is {issuer.issuer}; else entra"


async def test_neither_door_s_issuer_can_be_left_by_rekey(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    subjects = tmp_path / "subjects.csv"
    await asyncio.to_thread(subjects.write_text, "old_subject,new_subject\na,b\n")
    for served in (HOME_TENANT.tenant_id, local_azure.entra.oidc_issuer.issuer):
        options = ("--from-issuer", served, "--to-issuer", "https://new.example.com", "--subjects", str(subjects))
        result = await acs_auth("rekey", *options)
        assert (result.exit_code, "served by these settings" in result.stderr) == (2, True)


async def test_token_signs_in_at_the_issuer_of_the_door_that_is_named(
    local_azure: LocalAzure, environment: Environment
) -> None:
    other = OTHER_TENANT.tenant_id  # the stand-in plays the other issuer here, because one can sign in there
    given = {name: value for name, value in environment.items() if value is not None}
    given |= {"OIDC_ISSUER": f"{local_azure.entra.url}/{other}/v2.0", "DOCS_CLIENT_ID": COMMAND_LINE.client_id}
    by_device = ("token", "--device-code", "--timeout", "1")
    for options, tenant in (
        ((), HOME_TENANT.tenant_id),
        (("--door", "oidc", "--client-id", COMMAND_LINE.client_id), other),
    ):
        status, _, err = await finished(await start(given, *by_device, *options))
        assert (status, "Nobody signed in in time." in err) == (1, True), err
        asked = [call.path for call in local_azure.entra.faults.calls if call.operation == "device_code"]
        assert asked[-1].startswith(f"/{tenant}/")


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({}, ("--door", "oidc"), "Pass --client-id; for the first door, DOCS_CLIENT_ID is the default."),
        (
            {"OIDC_ISSUER": None, "OIDC_AUDIENCE": None, "OIDC_REQUIRED_SCOPE": None},
            ("--door", "oidc"),
            "--door oidc: by the settings, its users may not call.",
        ),
    ],
)
async def test_a_door_that_nobody_can_sign_in_by_is_refused_in_one_sentence(
    environment: Environment, acs_auth: AcsAuth, changes: Environment, options: tuple[str, ...], sentence: str
) -> None:
    environment.update(changes)
    result = await acs_auth("token", *options)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
