"""`acs-auth token` signs in for real, in a browser or with a code, and prints a token that the service takes."""

import asyncio
import json
import re
import shlex
import sys
from pathlib import Path

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from local_azure.entra.directory import API, BROWSER, COMMAND_LINE, HOME_TENANT
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from tests.quart_app.cli.conftest import AcsAuth
from tests.support.oidc_issuer import running_oidc_issuer
from tests.support.service_process import PATIENCE_SECONDS, finished
from tests.support.service_process import acs_auth as start

Environment = dict[str, str | None]


@pytest.fixture
def process_environment(environment: Environment) -> dict[str, str]:
    browser = f"{shlex.quote(sys.executable)} -m tests.support.browser %s &"
    return {name: value for name, value in environment.items() if value is not None} | {
        "BROWSER": browser,
        "DOCS_CLIENT_ID": COMMAND_LINE.client_id,
    }


async def test_the_browser_signs_in_and_the_token_alone_is_printed(
    local_azure: LocalAzure, process_environment: dict[str, str]
) -> None:
    status, out, err = await finished(await start(process_environment, "token"))
    assert status == 0, err
    claims = local_azure.entra.verify(out.strip())
    assert claims is not None
    assert claims["scp"] == "access_as_user"
    assert claims["oid"] == local_azure.entra.users["alex"].object_id
    assert out.strip() not in err


async def test_several_scopes_may_be_asked_for(local_azure: LocalAzure, process_environment: dict[str, str]) -> None:
    scopes = [f"{API.app_id_uri}/{name}" for name in API.scopes]
    asked = [word for scope in scopes for word in ("--scope", scope)]
    status, out, err = await finished(await start(process_environment, "token", "--json", *asked))
    assert status == 0, err
    answer = json.loads(out)
    claims = local_azure.entra.verify(answer["access_token"])
    assert claims is not None
    assert set(claims["scp"].split()) == set(API.scopes)
    assert answer["scope"] == " ".join(scopes)


async def test_a_sign_in_that_is_cancelled_fails_without_a_name(process_environment: dict[str, str]) -> None:
    status, out, err = await finished(await start(process_environment | {"BROWSER_USER": ""}, "token"))
    assert (status, out) == (1, "")
    assert "The sign-in failed (access_denied" in err
    assert "Traceback" not in err


async def test_a_single_page_registration_is_explained(process_environment: dict[str, str]) -> None:
    status, _, err = await finished(await start(process_environment, "token", "--client-id", BROWSER.client_id))
    assert status == 1
    assert "AADSTS9002327" in err
    assert "Mobile and desktop applications" in err


async def test_the_device_code_signs_in_elsewhere_and_needs_no_settings(
    local_azure: LocalAzure, process_environment: dict[str, str]
) -> None:
    trust = {name: process_environment[name] for name in ("PATH", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")}
    named = ("--client-id", COMMAND_LINE.client_id, "--tenant-id", process_environment["ENTRA_TENANT_ID"])
    scope = ("--scope", f"api://{process_environment['ENTRA_CLIENT_ID']}/access_as_user")
    host = ("--authority-host", process_environment["ENTRA_AUTHORITY_HOST"])
    process = await start(trust, "token", "--device-code", "--json", *named, *scope, *host)
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        message = (await process.stderr.readline()).decode()
        page, code = re.search(r"(https://\S+) and enter the code (\w+)", message).groups()  # type: ignore[union-attr]
        await local_azure.entra.faults.arrived("token")  # it has asked once, in vain
    async with aiohttp.ClientSession() as session:
        async with session.post(page, data={"user_code": "WRONG", "user": "megan"}) as answer:
            assert answer.status == 400
        async with session.get(page) as answer:
            assert "Enter code" in await answer.text()
        async with session.post(page, data={"user_code": code.lower(), "user": "megan"}) as answer:
            assert answer.status == 200
    status, out, err = await finished(process)
    assert status == 0, err
    claims = local_azure.entra.verify(json.loads(out)["access_token"])
    assert claims is not None
    assert claims["oid"] == local_azure.entra.users["megan"].object_id
    assert json.loads(out)["access_token"] not in err


async def test_nobody_in_time_and_a_declined_code_fail_in_a_sentence(
    local_azure: LocalAzure, process_environment: dict[str, str]
) -> None:
    status, _, err = await finished(await start(process_environment, "token", "--device-code", "--timeout", "1"))
    assert status == 1
    assert "Nobody signed in in time." in err
    process = await start(process_environment, "token", "--device-code")
    assert process.stderr is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        message = (await process.stderr.readline()).decode()
    page, code = re.search(r"(https://\S+) and enter the code (\w+)", message).groups()  # type: ignore[union-attr]
    async with aiohttp.ClientSession() as session, session.post(page, data={"user_code": code, "user": ""}):
        pass
    status, _, err = await finished(process)
    assert status == 1
    assert "authorization_declined" in err


async def test_without_a_browser_the_address_is_printed_and_nobody_is_waited_for_longer_than_told(
    process_environment: dict[str, str], tmp_path: Path
) -> None:
    without = {name: value for name, value in process_environment.items() if "DISPLAY" not in name}
    without |= {"BROWSER": "no-browser", "PATH": str(tmp_path)}
    status, out, err = await finished(await start(without, "token", "--timeout", "1"))
    assert (status, out) == (1, "")
    assert "No browser could be opened here. Open this address on this machine:\nhttps://localhost:" in err
    assert err.endswith("Nobody signed in in time.\n")


async def test_a_client_that_entra_id_does_not_know_is_told_without_any_settings(
    environment: Environment, acs_auth: AcsAuth
) -> None:
    authority = str(environment["ENTRA_AUTHORITY_HOST"])
    environment.update(dict.fromkeys(name for name in environment if name.startswith(("ENTRA_", "ACS_"))))
    assert (await acs_auth("check-config")).exit_code == 2
    named = ("--client-id", "nobody", "--tenant-id", HOME_TENANT.tenant_id, "--scope", "api://x/y")
    without = {name: value for name, value in environment.items() if value is not None}
    process = await start(without, "token", "--device-code", *named, "--authority-host", authority)
    status, out, err = await finished(process)
    assert (status, out) == (1, "")
    assert "AADSTS700016). --client-id is not an application of this tenant." in err


async def test_an_authority_that_can_not_be_used_is_told(
    local_azure: LocalAzure, process_environment: dict[str, str]
) -> None:
    local_azure.entra.faults.script("openid_configuration_v2", Fault(reset=True, times=None))
    status, _, err = await finished(await start(process_environment, "token"))
    assert status == 1
    assert "Entra ID can't be reached" in err
    local_azure.entra.faults.clear()
    status, _, err = await finished(await start(process_environment, "token", "--tenant-id", "nowhere"))
    assert status == 1
    assert "check --authority-host and --tenant-id" in err
    assert "Traceback" not in err


@pytest.fixture
def other_issuer(local_azure: LocalAzure, process_environment: dict[str, str]) -> dict[str, str]:
    """The settings of a service whose users come from another issuer than Entra ID, which the stand-in plays."""
    given = {name: value for name, value in process_environment.items() if not name.startswith(("ENTRA_", "TEAMS_"))}
    return given | {
        "OIDC_ISSUER": f"{local_azure.entra.url}/{HOME_TENANT.tenant_id}/v2.0",
        "OIDC_AUDIENCE": API.client_id,
        "OIDC_REQUIRED_SCOPE": "access_as_user",
        "OIDC_SUBJECT_CLAIM": "oid",
        "DOCS_SCOPES": f"api://{API.client_id}/access_as_user openid",
    }


async def test_with_another_issuer_users_sign_in_there_by_its_discovered_endpoints(
    local_azure: LocalAzure, other_issuer: dict[str, str]
) -> None:
    status, out, err = await finished(await start(other_issuer, "token"))
    assert status == 0, err
    claims = local_azure.entra.verify(out.strip())
    assert claims is not None
    assert (claims["iss"], claims["oid"]) == (other_issuer["OIDC_ISSUER"], local_azure.entra.users["alex"].object_id)


@pytest.mark.parametrize(
    ("changes", "options", "sentence"),
    [
        ({}, ("--tenant-id", "x"), "--tenant-id is for Microsoft Entra ID, and OIDC_ISSUER is set."),
        ({"OIDC_ISSUER": "{entra}/common/v2.0"}, (), "does not answer as the issuer does: check OIDC_ISSUER"),
        ({"OIDC_DISCOVERY_URL": "{entra}/nowhere"}, (), "check OIDC_ISSUER and OIDC_DISCOVERY_URL."),
        ({"OIDC_DISCOVERY_URL": "{entra}/devicelogin"}, (), "/devicelogin is not a discovery document: check OIDC_ISS"),
        ({"OIDC_ISSUER": "https://localhost:9"}, (), "The issuer can't be reached (ConnectionError): check OIDC_ISS"),
    ],
)
async def test_another_issuer_that_can_not_sign_in_is_refused_in_one_sentence(
    local_azure: LocalAzure,
    other_issuer: dict[str, str],
    changes: dict[str, str],
    options: tuple[str, ...],
    sentence: str,
) -> None:
    given = {name: value.format(entra=local_azure.entra.url) for name, value in changes.items()}
    status, out, err = await finished(await start(other_issuer | given, "token", *options))
    assert (status in (1, 2), out) == (True, "")
    assert sentence in " ".join(err.split())
    assert "Traceback" not in err


async def test_another_issuer_signs_in_by_device_code_where_it_offers_that(
    local_azure: LocalAzure, other_issuer: dict[str, str]
) -> None:
    process = await start(other_issuer, "token", "--device-code", "--timeout", "1")
    status, out, err = await finished(process)
    assert (status, out) == (1, "")
    assert "enter the code" in err
    assert "Nobody signed in in time." in err


async def test_another_issuer_that_offers_no_device_code_is_told(
    environment: Environment, acs_auth: AcsAuth, state_directory: Path, signing_keys: list[rsa.RSAPrivateKey]
) -> None:
    environment.update({name: None for name in environment if name.startswith(("ENTRA_", "TEAMS_", "DOCS_"))})
    async with running_oidc_issuer(state_directory, signing_keys[0], {}) as issuer:
        environment.update(OIDC_ISSUER=issuer.issuer, OIDC_AUDIENCE="api", OIDC_REQUIRED_SCOPE="access")
        result = await acs_auth("token", "--device-code", "--client-id", "x")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "This issuer offers no sign-in by device code: leave --device-code out.\n"
