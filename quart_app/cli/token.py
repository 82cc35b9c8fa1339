"""`acs-auth token`: sign in to Entra ID and print an access token for the API."""

from typing import Any

import click

from quart_app.cli.common import echo_json, fail, json_option, loaded_settings

_REMEDIES = {
    9002327: "The registration is a single-page application only: add the platform 'Mobile and desktop applications' "
    "with the redirect URI http://localhost to it, or give another --client-id.",
    7000218: "Allow public client flows in the registration of --client-id (Authentication, advanced settings).",
    50011: "Add the platform 'Mobile and desktop applications' with the redirect URI http://localhost to the "
    "registration of --client-id.",
    65001: "Nobody consented: sign in with an account that may consent, or let an administrator do it.",
    700016: "--client-id is no application of this tenant.",
    90002: "--tenant-id is no tenant of this cloud.",
}


@click.command()
@click.option("--client-id", help="The client application that signs in. [default: DOCS_CLIENT_ID]")
@click.option("--tenant-id", help="The tenant to sign in to. [default: ENTRA_TENANT_ID]")
@click.option("--scope", help="The API's scope, such as api://…/access_as_user. [default: from the settings]")
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
    client_id: str | None,
    tenant_id: str | None,
    scope: str | None,
    authority_host: str | None,
    device_code: bool,
    port: int,
    login_hint: str | None,
    timeout: int,
    as_json: bool,
) -> None:
    """Sign a user in and print an access token for the API.

    Nothing else is printed to standard output.

    TOKEN=$(acs-auth token) and then: curl -H "Authorization: Bearer $TOKEN" http://localhost:5000/api/user

    With --client-id, --tenant-id and --scope no settings are needed. The client application must be registered for
    'Mobile and desktop applications' with the redirect URI http://localhost; for --device-code it must allow public
    client flows. The token is kept nowhere.

    Exit status: 0, 1 if the sign-in failed, 2 for bad usage or settings.
    """
    if not (client_id and tenant_id and scope):
        settings = loaded_settings()
        client_id = client_id or settings.docs.client_id
        tenant_id = tenant_id or settings.entra.tenant_id
        scope = scope or settings.entra.full_scope
        authority_host = authority_host or settings.entra.authority_host
    if not client_id:
        raise click.UsageError("Say --client-id, or set DOCS_CLIENT_ID.")
    authority = f"{(authority_host or 'https://login.microsoftonline.com').rstrip('/')}/{tenant_id}"
    answer = _sign_in(authority, client_id, scope, device_code=device_code, port=port, hint=login_hint, timeout=timeout)
    if "access_token" not in answer:
        fail(_explained(answer))
    if as_json:
        echo_json({"access_token": answer["access_token"], "expires_in": answer.get("expires_in"), "scope": scope})
    else:
        click.echo(answer["access_token"])
        click.echo(f"Good for {int(answer.get('expires_in', 0)) // 60} minutes.", err=True)


def _sign_in(
    authority: str, client_id: str, scope: str, *, device_code: bool, port: int, hint: str | None, timeout: int
) -> dict[str, Any]:
    import msal
    import requests

    try:
        application = msal.PublicClientApplication(client_id, authority=authority, instance_discovery=False)
        if device_code:
            return _with_device_code(application, scope, timeout)
        click.echo("Signing in: a browser opens. Without one here, use --device-code.", err=True)
        answer: dict[str, Any] = application.acquire_token_interactive(
            [scope],
            port=port or None,
            login_hint=hint,
            prompt="select_account",
            timeout=timeout,
            auth_uri_callback=_open_by_hand,
        )
    except msal.BrowserInteractionTimeoutError:
        fail("Nobody signed in in time.")
    except requests.RequestException as error:
        fail(f"Entra ID can't be reached ({type(error).__name__}): check --authority-host and the network.")
    except ValueError:
        fail(f"{authority} does not answer as Entra ID does: check --authority-host and --tenant-id.")
    else:
        return answer


def _with_device_code(application: Any, scope: str, timeout: int) -> dict[str, Any]:
    flow: dict[str, Any] = application.initiate_device_flow([scope])
    if "user_code" not in flow:
        return flow
    flow["expires_at"] = min(flow["expires_at"], flow["expires_at"] - flow["expires_in"] + timeout)
    click.echo(flow["message"], err=True)
    answer: dict[str, Any] = application.acquire_token_by_device_flow(flow)
    return answer


def _open_by_hand(address: str) -> None:
    click.echo(f"No browser could be opened here. Open this address on this machine:\n{address}", err=True)


def _explained(answer: dict[str, Any]) -> str:
    """What Entra ID's refusal means; its own text names the account, so only its codes are told."""
    codes = [code for code in answer.get("error_codes") or () if isinstance(code, int)]
    description = str(answer.get("error_description", ""))
    codes += [int(code) for code in [description.partition(":")[0].removeprefix("AADSTS")] if code.isdecimal()]
    remedy = next((_REMEDIES[code] for code in codes if code in _REMEDIES), "")
    named = f", AADSTS{codes[0]}" if codes else ""
    if answer.get("error") == "authorization_pending":
        return "Nobody signed in in time."
    return f"The sign-in failed ({answer.get('error', 'no answer')}{named}). {remedy}".strip()
