"""`acs-auth token`: sign in to Entra ID, or to the other issuer, and print an access token for the API."""

import time
from collections.abc import Callable
from typing import Any

import click

from quart_app.cli.common import echo_json, fail, json_option, loaded_settings
from quart_app.settings import DocsSettings, DoorName, OidcSettings

_SECONDS = 10

_REMEDIES = {
    9002327: "The registration is a single-page application only: add the platform 'Mobile and desktop applications' "
    "with the redirect URI http://localhost to it, or pass another --client-id.",
    7000218: "Allow public client flows in the registration of --client-id (Authentication, advanced settings).",
    50011: "Add the platform 'Mobile and desktop applications' with the redirect URI http://localhost to the "
    "registration of --client-id.",
    65001: "Nobody has consented: sign in with an account that may consent, or let an administrator consent.",
    700016: "--client-id is not an application of this tenant.",
    90002: "--tenant-id is not a tenant of this cloud.",
}


@click.command()
@click.option(
    "--door",
    type=click.Choice([door.value for door in DoorName]),
    help="Whose user signs in. [default: the first that is open]",
)
@click.option("--client-id", help="The client application that signs in. [default: DOCS_CLIENT_ID]")
@click.option("--tenant-id", help="The tenant to sign in to. [default: ENTRA_TENANT_ID]")
@click.option(
    "--scope",
    "scope",
    multiple=True,
    help="A scope of the API, such as api://…/access_as_user; may be repeated. [default: from the settings]",
)
@click.option("--authority-host", envvar="ENTRA_AUTHORITY_HOST", help="The authority, in national clouds.")
@click.option("--device-code", is_flag=True, help="Sign in on another device instead of in this machine's browser.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="The port that the browser returns to. [default: any]"
)
@click.option("--login-hint", help="The user name to suggest.")
@click.option(
    "--timeout", type=click.IntRange(1), default=300, show_default=True, help="Seconds to wait for the sign-in."
)
@json_option
def token(
    *,
    door: str | None,
    client_id: str | None,
    tenant_id: str | None,
    scope: tuple[str, ...],
    authority_host: str | None,
    device_code: bool,
    port: int,
    login_hint: str | None,
    timeout: int,
    as_json: bool,
) -> None:
    """Sign a user in and print an access token for the API.

    It prints nothing else to standard output.

    TOKEN=$(acs-auth token) and then: curl -H "Authorization: Bearer $TOKEN" http://localhost:5000/api/user

    With --client-id, --tenant-id and --scope it needs no settings. If users of Microsoft Entra ID and those of
    OIDC_ISSUER call, --door oidc signs one of the latter in, with the client that --client-id names, at the endpoints
    that the issuer's discovery document names. The client application must be registered for 'Mobile and desktop
    applications' with the redirect URI http://localhost; for --device-code it must allow public client flows. The token
    is stored nowhere.

    Exit status: 0, 1 if the sign-in failed, 2 for bad usage or settings.
    """
    oidc: OidcSettings | None = None
    scopes = list(scope)
    if door or not (client_id and tenant_id and scope):
        settings = loaded_settings()
        name = DoorName(door) if door else settings.doors[0]
        if name not in settings.doors:
            raise click.UsageError(f"--door {name}: by the settings, its users may not call.")
        docs = settings.docs if name is settings.doors[0] else DocsSettings()  # its client is the first door's
        client_id = client_id or docs.client_id
        if name is DoorName.ENTRA:
            tenant_id = tenant_id or settings.entra.tenant_id
            scopes = scopes or [settings.entra.full_scope]
            authority_host = authority_host or settings.entra.authority_host
        else:
            oidc = settings.oidc
            scopes = scopes or list(docs.scopes) or [oidc.required_scope or "openid"]
    if not client_id:
        raise click.UsageError("Pass --client-id; for the first door, DOCS_CLIENT_ID is the default.")
    if oidc and tenant_id:
        raise click.UsageError("--tenant-id is for Microsoft Entra ID, and OIDC_ISSUER is set.")
    issuer = _OtherIssuer(client_id, oidc) if oidc else _Entra(client_id, authority_host, tenant_id)
    answer = _sign_in(issuer, scopes, device_code=device_code, port=port, hint=login_hint, timeout=timeout)
    if "access_token" not in answer:
        fail(_explained(answer))
    if as_json:
        shown = " ".join(scopes)
        echo_json({"access_token": answer["access_token"], "expires_in": answer.get("expires_in"), "scope": shown})
    else:
        click.echo(answer["access_token"])
        click.echo(f"Good for {int(answer.get('expires_in', 0)) // 60} minutes.", err=True)


class _Entra:
    """Signs users of Microsoft Entra ID in. Raises what `requests` raises, and `ValueError` for an odd authority."""

    called = "Entra ID"

    def __init__(self, client_id: str, authority_host: str | None, tenant_id: str | None) -> None:
        self.client_id = client_id
        self.address = f"{(authority_host or 'https://login.microsoftonline.com').rstrip('/')}/{tenant_id}"
        self.check = "--authority-host and --tenant-id"

    def by_browser(self, scopes: list[str], port: int, hint: str | None, timeout: int) -> dict[str, Any]:
        answer: dict[str, Any] = self._application().acquire_token_interactive(
            scopes,
            port=port or None,
            login_hint=hint,
            prompt="select_account",
            timeout=timeout,
            auth_uri_callback=_open_by_hand,
        )
        return answer

    def by_device_code(self, scopes: list[str], timeout: int) -> dict[str, Any]:
        application = self._application()
        flow: dict[str, Any] = application.initiate_device_flow(scopes)
        return _polled(flow, timeout, application.acquire_token_by_device_flow)

    def _application(self) -> Any:
        import msal

        return msal.PublicClientApplication(self.client_id, authority=self.address, instance_discovery=False)


class _OtherIssuer:
    """Signs users of `OIDC_ISSUER` in, by the endpoints of its discovery document. Raises as `_Entra` does.

    MSAL's own client for any issuer, because its applications know none whose address has no path (Auth0, Kinde).
    """

    called = "The issuer"

    def __init__(self, client_id: str, oidc: OidcSettings) -> None:
        self.client_id = client_id
        self.address = str(oidc.discovery_address)
        self.check = "OIDC_ISSUER and OIDC_DISCOVERY_URL"
        self._issuer = oidc.issuer

    def by_browser(self, scopes: list[str], port: int, hint: str | None, timeout: int) -> dict[str, Any]:
        answer: dict[str, Any] = self._client().obtain_token_by_browser(
            redirect_uri=f"http://localhost:{port}",
            scope=_with_openid(scopes),
            timeout=timeout,
            auth_params={"login_hint": hint} if hint else {},
            auth_uri_callback=_open_by_hand,
        )
        return answer

    def by_device_code(self, scopes: list[str], timeout: int) -> dict[str, Any]:
        client = self._client()
        if not client.configuration["device_authorization_endpoint"]:
            fail("This issuer offers no sign-in by device code: leave --device-code out.")
        flow: dict[str, Any] = client.initiate_device_flow(_with_openid(scopes))
        return _polled(flow, timeout, client.obtain_token_by_device_flow)

    def _client(self) -> Any:
        import requests
        from msal.oauth2cli.oidc import Client

        document = requests.get(self.address, timeout=_SECONDS, allow_redirects=False).json()
        if document["issuer"] != self._issuer:
            raise ValueError(self.address)
        endpoints = ("authorization_endpoint", "token_endpoint")
        found = {name: document[name] for name in endpoints}
        device = document.get("device_authorization_endpoint")
        return Client({**found, "device_authorization_endpoint": device}, self.client_id, timeout=_SECONDS)


def _with_openid(scopes: list[str]) -> list[str]:
    return list(dict.fromkeys(("openid", *scopes)))


def _sign_in(
    issuer: _Entra | _OtherIssuer, scopes: list[str], *, device_code: bool, port: int, hint: str | None, timeout: int
) -> dict[str, Any]:
    import msal
    import requests

    try:
        if device_code:
            return issuer.by_device_code(scopes, timeout)
        click.echo("Signing in: a browser opens. Without one here, use --device-code.", err=True)
        return issuer.by_browser(scopes, port, hint, timeout)
    except msal.BrowserInteractionTimeoutError:
        fail("Nobody signed in in time.")
    except requests.JSONDecodeError:
        fail(f"{issuer.address} is not a discovery document: check {issuer.check}.")
    except requests.RequestException as error:
        fail(f"{issuer.called} can't be reached ({type(error).__name__}): check {issuer.check}, and the network.")
    except (KeyError, TypeError, ValueError):
        fail(f"{issuer.address} does not answer as {issuer.called.lower()} does: check {issuer.check}.")


def _polled(flow: dict[str, Any], timeout: int, poll: Callable[[dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    if "user_code" not in flow:
        return flow
    now = time.time()
    flow["expires_at"] = now + min(timeout, int(flow.get("expires_in", timeout)))
    place = flow.get("verification_uri") or flow.get("verification_url")
    click.echo(flow.get("message") or f"Open {place} and enter the code {flow['user_code']}.", err=True)
    return poll(flow)


def _open_by_hand(address: str) -> None:
    click.echo(f"No browser could be opened here. Open this address on this machine:\n{address}", err=True)


def _explained(answer: dict[str, Any]) -> str:
    """What Entra ID's refusal means; its own text names the account, so only its codes are printed."""
    codes = [code for code in answer.get("error_codes") or () if isinstance(code, int)]
    description = str(answer.get("error_description", ""))
    codes += [int(code) for code in [description.partition(":")[0].removeprefix("AADSTS")] if code.isdecimal()]
    remedy = next((_REMEDIES[code] for code in codes if code in _REMEDIES), "")
    named = f", AADSTS{codes[0]}" if codes else ""
    if answer.get("error") == "authorization_pending":
        return "Nobody signed in in time."
    return f"The sign-in failed ({answer.get('error', 'no answer')}{named}). {remedy}".strip()
