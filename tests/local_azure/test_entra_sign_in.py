"""Authorization code with PKCE at the Entra ID stand-in, with aiohttp as the browser."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from local_azure.entra.directory import API, BROWSER, HOME_TENANT, OTHER_TENANT, TEAMS, USERS
from local_azure.environment import LocalAzure, Ports
from local_azure.keys import KeyFactory
from tests.conftest import FakeClock
from tests.support.entra_client import (
    API_SCOPE,
    ORIGIN,
    TENANT,
    Browser,
    authorization_request,
    error_codes,
    read,
    redemption,
)


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def browser(http: aiohttp.ClientSession, local_azure: LocalAzure) -> Browser:
    return Browser(http, local_azure.entra.url)


async def test_a_browser_signs_in_and_gets_tokens(browser: Browser, local_azure: LocalAzure) -> None:
    redirect = await browser.authorize(nonce="n-1")
    assert redirect["state"] == "state & more"
    status, body = await browser.redeem(redemption(redirect["code"]))
    assert status == 200
    assert body["token_type"] == "Bearer"
    assert body["scope"] == API_SCOPE
    assert 60 * 60 <= body["expires_in"] <= 90 * 60
    access = local_azure.entra.verify(body["access_token"])
    assert access is not None
    assert (access["azp"], access["azpacr"], access["scp"]) == (BROWSER.client_id, "0", "access_as_user")
    identity = local_azure.entra.verify(body["id_token"])
    assert identity is not None
    assert (identity["aud"], identity["nonce"], identity["name"]) == (BROWSER.client_id, "n-1", "Alex Wilber")
    assert identity["sub"] != access["sub"]


async def test_tokens_that_were_not_asked_for_are_not_given(browser: Browser) -> None:
    code = (await browser.authorize(scope=API_SCOPE))["code"]
    _, body = await browser.redeem(redemption(code))
    assert not {"id_token", "refresh_token", "client_info"} & body.keys()


async def test_the_page_lists_the_tenants_users_and_the_chosen_one_signs_in(
    http: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    address = f"{local_azure.entra.url}/{TENANT}/oauth2/v2.0/authorize"
    query = authorization_request(prompt=None, login_hint=None)
    async with http.get(address, params=query) as answer:
        page = await answer.text()
        assert answer.status == 200
        assert "script" not in answer.headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    assert "Local development sign-in" in page
    assert re.findall(r'name="user" value="(\w+)"', page) == ["alex", "megan", "pradeep", "zoe", "guest"]
    assert not re.search(r"(src|href)=", page)
    async with http.post(address, params=query, data={"user": "megan"}, allow_redirects=False) as picked:
        code = re.search(r"code=([^&]+)", picked.headers["Location"])
        assert code
    _, body = await Browser(http, local_azure.entra.url).redeem(redemption(code[1]))
    assert read(body["access_token"])["oid"] == USERS["megan"].object_id


async def test_cancelling_is_access_denied(http: aiohttp.ClientSession, local_azure: LocalAzure) -> None:
    address = f"{local_azure.entra.url}/{TENANT}/oauth2/v2.0/authorize"
    query = authorization_request(prompt=None)
    async with http.post(address, params=query, data={"user": ""}, allow_redirects=False) as answer:
        assert "error=access_denied" in answer.headers["Location"]


async def test_a_login_hint_puts_its_user_first(http: aiohttp.ClientSession, local_azure: LocalAzure) -> None:
    address = f"{local_azure.entra.url}/{TENANT}/oauth2/v2.0/authorize"
    query = authorization_request(prompt=None, login_hint="zoe@contoso.localhost")
    async with http.get(address, params=query) as answer:
        assert re.findall(r'name="user" value="(\w+)"', await answer.text())[0] == "zoe"


async def test_what_a_request_says_is_escaped_on_the_pages(browser: Browser) -> None:
    attack = '"><script>alert(1)</script>'
    picker = await browser.authorize_raw(prompt=None, login_hint=attack, state=attack)
    refusal = await browser.authorize_raw(client_id=attack)
    for page in (await picker.text(), await refusal.text()):
        assert "<script" not in page
    assert (await picker.text()).count("<form") == 1
    assert "&amp;response_type=code&amp;" in await picker.text()


@pytest.mark.parametrize("hint", [None, "nobody@contoso.localhost", "nestor@fabrikam.localhost"])
async def test_a_silent_sign_in_without_a_known_user_needs_a_login(browser: Browser, hint: str | None) -> None:
    redirect = await browser.authorize(login_hint=hint)
    assert redirect["error"] == "login_required"
    assert redirect["error_description"].startswith("AADSTS50058")
    assert redirect["state"] == "state & more"


async def test_the_fragment_carries_the_answer_when_asked(browser: Browser) -> None:
    answer = await browser.authorize_raw(response_mode="fragment")
    assert "?" not in answer.headers["Location"]
    assert "#code=" in answer.headers["Location"]


@pytest.mark.parametrize(
    "address",
    [
        "http://localhost:5000/docs/oauth2-redirect.html",
        "http://127.0.0.1:1/",
        "https://localhost/any?x=1",
        "http://[::1]:4000/cb",
    ],
)
async def test_any_port_and_path_on_loopback_is_a_redirect_uri(browser: Browser, address: str) -> None:
    answer = await browser.authorize_raw(redirect_uri=address)
    assert answer.headers["Location"].startswith(address)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"redirect_uri": "https://evil.example/cb"}, 50011),
        ({"redirect_uri": "http://localhost.evil.example/cb"}, 50011),
        ({"redirect_uri": "http://localhost@evil.example/cb"}, 50011),
        ({"redirect_uri": "javascript://localhost/%0aalert(1)"}, 50011),
        ({"redirect_uri": "http://localhost/cb#fragment"}, 50011),
        ({"redirect_uri": None}, 900144),
        ({"client_id": None}, 900144),
        ({"client_id": "11111111-1111-1111-1111-111111111111"}, 700016),
        ({"client_id": API.client_id}, 50011),
    ],
)
async def test_a_redirect_that_is_not_the_clients_is_never_followed(
    browser: Browser, changes: dict[str, str | None], code: int
) -> None:
    answer = await browser.authorize_raw(**changes)
    assert answer.status == 400
    assert "Location" not in answer.headers
    assert f"AADSTS{code}" in await answer.text()


@pytest.mark.parametrize(
    ("changes", "error", "code"),
    [
        ({"code_challenge": None}, "invalid_request", 9002325),
        ({"code_challenge_method": "plain"}, "invalid_request", 50149),
        ({"code_challenge_method": None}, "invalid_request", 50149),
        ({"code_challenge": "short"}, "invalid_request", 501491),
        ({"response_type": "token"}, "unsupported_response_type", 70005),
        ({"scope": None}, "invalid_request", 900144),
        ({"scope": "api://unknown/x"}, "invalid_resource", 500011),
        ({"scope": f"{API.app_id_uri}/other"}, "invalid_client", 650053),
        ({"scope": f"{API_SCOPE} User.Read"}, "invalid_scope", 28000),
        ({"claims": "not json"}, "invalid_request", 50125),
    ],
)
async def test_a_faulty_request_is_answered_at_the_redirect_uri(
    browser: Browser, changes: dict[str, str | None], error: str, code: int
) -> None:
    redirect = await browser.authorize(**changes)
    assert redirect["error"] == error
    assert redirect["error_description"].startswith(f"AADSTS{code}: ")
    assert redirect["state"] == "state & more"


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"code_verifier": "x" * 43}, [501481]),
        ({"code_verifier": None}, [501481]),
        ({"redirect_uri": "http://localhost:3000/other"}, [500112]),
        ({"redirect_uri": None}, [500112]),
        ({"client_id": TEAMS.client_id}, [70000]),
        ({"code": "made-up"}, [70000]),
        ({"client_secret": "x"}, [700025]),
    ],
)
async def test_a_code_is_bound_to_its_request(
    browser: Browser, changes: dict[str, str | None], codes: list[int]
) -> None:
    code = (await browser.authorize())["code"]
    form = redemption(code, **changes)
    status, body = await browser.redeem(form)
    assert status == (401 if codes == [700025] else 400)
    assert error_codes(body) == codes
    assert (await browser.redeem(redemption(code)))[0] == 200


async def test_a_code_works_once(browser: Browser) -> None:
    code = (await browser.authorize())["code"]
    assert (await browser.redeem(redemption(code)))[0] == 200
    status, body = await browser.redeem(redemption(code))
    assert (status, body["error"], error_codes(body)) == (400, "invalid_grant", [54005])


async def test_a_code_lives_ten_minutes(
    state_directory: Path, new_key: KeyFactory, http: aiohttp.ClientSession
) -> None:
    clock = FakeClock(1_800_000_000)
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), clock=clock, new_key=new_key) as running:
        browser = Browser(http, running.entra.url)
        timely, late = [(await browser.authorize())["code"] for _ in range(2)]
        clock.advance(10 * 60 - 1)
        assert (await browser.redeem(redemption(timely)))[0] == 200
        clock.advance(1)
        assert error_codes((await browser.redeem(redemption(late)))[1]) == [70008]


async def test_a_refresh_token_gives_new_tokens_until_it_expires(
    state_directory: Path, new_key: KeyFactory, http: aiohttp.ClientSession
) -> None:
    clock = FakeClock(1_800_000_000)
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), clock=clock, new_key=new_key) as running:
        browser = Browser(http, running.entra.url)
        first = await browser.sign_in()
        form = {
            "grant_type": "refresh_token",
            "client_id": BROWSER.client_id,
            "refresh_token": first["refresh_token"],
        }
        clock.advance(3600)
        _, second = await browser.redeem(form)
        assert read(second["access_token"])["exp"] == read(first["access_token"])["exp"] + 3600
        assert second["refresh_token"] != first["refresh_token"]
        assert error_codes((await browser.redeem({**form, "client_id": TEAMS.client_id}))[1]) == [70000]
        clock.advance(23 * 3600)
        assert error_codes((await browser.redeem(form))[1]) == [70008]


async def test_an_authorization_code_is_no_refresh_token(browser: Browser) -> None:
    code = (await browser.authorize())["code"]
    form = {"grant_type": "refresh_token", "client_id": BROWSER.client_id, "refresh_token": code}
    assert error_codes((await browser.redeem(form))[1]) == [70000]


async def test_only_single_page_applications_redeem_cross_origin_and_they_must(browser: Browser) -> None:
    code = (await browser.authorize())["code"]
    status, body = await browser.redeem(redemption(code), origin=None)
    assert (status, error_codes(body)) == (400, [9002327])
    confidential = redemption(code, client_id=API.client_id, client_secret=API.secret)
    assert error_codes((await browser.redeem(confidential))[1]) == [9002326]


async def test_the_token_endpoint_allows_loopback_origins_alone(
    http: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    address = f"{local_azure.entra.url}/{TENANT}/oauth2/v2.0/token"
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-requested-with"}
    async with http.options(address, headers={"Origin": ORIGIN, **asked}) as preflight:
        assert preflight.status == 200
        assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
        assert preflight.headers["Access-Control-Allow-Headers"] == "x-requested-with"
    async with http.post(address, headers={"Origin": ORIGIN}) as refused:
        assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert refused.headers["Vary"] == "Origin"
    for origin in ("https://evil.example", "http://localhost.evil.example", "null"):
        async with http.options(address, headers={"Origin": origin, **asked}) as foreign:
            assert "Access-Control-Allow-Origin" not in foreign.headers


async def test_signing_in_at_organizations_gives_a_token_of_the_users_own_tenant(browser: Browser) -> None:
    redirect = await browser.authorize("organizations", login_hint="nestor")
    _, body = await browser.redeem(redemption(redirect["code"]), tenant="organizations")
    claims = read(body["access_token"])
    assert claims["tid"] == OTHER_TENANT.tenant_id
    assert claims["iss"].endswith(f"/{OTHER_TENANT.tenant_id}/v2.0")


async def test_a_guest_has_an_object_in_the_inviting_tenant(browser: Browser, local_azure: LocalAzure) -> None:
    local_azure.entra.api_token_version = 1
    claims = read((await browser.sign_in(login_hint="guest"))["access_token"])
    assert claims["tid"] == HOME_TENANT.tenant_id
    assert claims["idp"] == f"https://sts.windows.net/{OTHER_TENANT.tenant_id}/"


async def test_a_code_is_not_redeemed_at_another_tenant(browser: Browser) -> None:
    code = (await browser.authorize())["code"]
    _, body = await browser.redeem(redemption(code), tenant=OTHER_TENANT.tenant_id)
    assert error_codes(body) == [90072]


async def test_the_teams_client_gets_tokens_for_acs_and_others_do_not(browser: Browser) -> None:
    resource = "https://auth.msft.communication.azure.com"
    scope = f"{resource}/Teams.ManageCalls {resource}/Teams.ManageChats"
    claims = read((await browser.sign_in(client_id=TEAMS.client_id, scope=scope))["access_token"])
    assert (claims["aud"], claims["appid"]) == (resource, TEAMS.client_id)
    assert claims["scp"] == "Teams.ManageCalls Teams.ManageChats"
    redirect = await browser.authorize(scope=scope)
    assert redirect["error_description"].startswith("AADSTS65001")


async def test_a_client_that_handles_claims_challenges_says_so_in_its_token(browser: Browser) -> None:
    claims = '{"access_token":{"xms_cc":{"values":["CP1"]}}}'
    assert read((await browser.sign_in(claims=claims))["access_token"])["xms_cc"] == ["cp1"]
    assert "xms_cc" not in read((await browser.sign_in())["access_token"])


async def test_a_plain_request_at_the_token_endpoint_says_what_is_missing(browser: Browser) -> None:
    for form, error, codes in (
        ({}, "invalid_request", [900144]),
        ({"grant_type": "password"}, "unsupported_grant_type", [70003]),
        ({"grant_type": "authorization_code"}, "invalid_request", [900144]),
        ({"grant_type": "authorization_code", "client_id": BROWSER.client_id}, "invalid_request", [900144]),
    ):
        status, body = await browser.redeem(form)
        assert (status, body["error"], error_codes(body)) == (400, error, codes)


async def test_signing_out_returns_to_a_loopback_address_alone(
    http: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    address = f"{local_azure.entra.url}/{TENANT}/oauth2/v2.0/logout"
    async with http.get(address, params={"post_logout_redirect_uri": ORIGIN + "/"}, allow_redirects=False) as back:
        assert (back.status, back.headers["Location"]) == (302, ORIGIN + "/")
    async with http.get(address, params={"post_logout_redirect_uri": "https://evil.example/"}) as stay:
        assert stay.status == 200
