"""The sign-in pages: plain HTML without scripts or outside assets; every value is escaped."""

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape

from aiohttp import web

from local_azure.entra.directory import TENANTS, Application, User
from local_azure.entra.errors import EntraError

_STYLE = """
:root { color-scheme: light dark; --line: #8886; --accent: #0f6cbd; }
* { box-sizing: border-box; }
body { margin: 0; min-height: 100vh; display: grid; place-items: center; padding: 1.5rem;
  font: 1rem/1.5 system-ui, sans-serif; background: Canvas; color: CanvasText; }
main { width: min(27rem, 100%); border: 1px solid var(--line); border-radius: .75rem; padding: 2rem; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; }
p { margin: 0 0 1rem; }
.notice { border-left: .25rem solid #d18700; padding: .25rem .75rem; background: #d1870018; font-size: .9rem; }
ul { list-style: none; margin: 0 0 1rem; padding: 0; display: grid; gap: .5rem; }
button { width: 100%; min-height: 3rem; padding: .6rem .9rem; border: 1px solid var(--line); border-radius: .5rem;
  background: transparent; color: inherit; font: inherit; text-align: left; cursor: pointer; overflow-wrap: anywhere; }
button:hover { border-color: var(--accent); background: #0f6cbd18; }
button:focus-visible { outline: .2rem solid var(--accent); outline-offset: .1rem; }
small { display: block; opacity: .8; }
.quiet { text-align: center; }
"""
_STYLE_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
_NOTICE = "Local development sign-in. This is not Microsoft: there are no passwords, and nobody is really signed in."


def user_picker(client: Application, users: Iterable[User], action: str) -> web.Response:
    """The page that asks who signs in; it posts the chosen alias to `action`."""
    domains = {tenant.tenant_id: tenant.name for tenant in TENANTS}
    choices = "".join(
        f'<li><button name="user" value="{escape(user.alias)}">{escape(user.name)}'
        f"<small>{escape(user.username)} · {escape(domains[user.tenant_id])}</small></button></li>"
        for user in users
    )
    return _page(
        "Pick an account",
        f"<p>to continue to <strong>{escape(client.name)}</strong></p>"
        f'<form method="post" action="{escape(action)}"><ul>{choices}</ul>'
        '<button class="quiet" name="user" value="">Cancel</button></form>',
    )


def device_sign_in(users: Iterable[User]) -> web.Response:
    """The page on which the code of a device is entered; it posts the code and the chosen alias to itself."""
    choices = "".join(
        f'<li><button name="user" value="{escape(user.alias)}">{escape(user.name)}'
        f"<small>{escape(user.username)}</small></button></li>"
        for user in users
    )
    return _page(
        "Enter code",
        '<form method="post"><p><label>The code that your program shows<br>'
        f'<input name="user_code" required autocomplete="off"></label></p><ul>{choices}</ul>'
        '<button class="quiet" name="user" value="">Cancel</button></form>',
    )


def device_signed_in() -> web.Response:
    """The page after a device's code was entered."""
    return _page("Back to your program", "<p>You may close this page.</p>")


def post_back(address: str, parameters: Mapping[str, str]) -> web.Response:
    """The answer of a sign-in as a form for `address` (OAuth 2.0 Form Post Response Mode).

    Entra ID's page posts itself by a script; pages here have none.
    """
    fields = "".join(
        f'<input type="hidden" name="{escape(name)}" value="{escape(value)}">' for name, value in parameters.items()
    )
    return _page(
        "Signed in",
        f'<form method="post" action="{escape(address)}">{fields}<button>Continue to the program</button></form>',
    )


def failure(error: EntraError) -> web.Response:
    """The page for a request that cannot be answered by a redirect."""
    return _page("Sign-in is not possible", f"<p>{escape(str(error))}</p>", status=400)


def signed_out() -> web.Response:
    """The page after signing out."""
    return _page("You signed out", "<p>You may close this page.</p>")


def _page(title: str, content: str, *, status: int = 200) -> web.Response:
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)} (local development)</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{_STYLE}</style></head><body>'
        f'<main><h1>{escape(title)}</h1><p class="notice" role="note">{_NOTICE}</p>{content}</main></body></html>'
    )
    return web.Response(status=status, text=text, content_type="text/html", headers=_HEADERS)
