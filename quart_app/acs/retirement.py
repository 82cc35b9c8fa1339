"""What Microsoft announced about the end of Azure Communication Services: docs/retirement.md."""

from collections.abc import Iterable

RETIRES_ON = "2028-09-30"
PAGE = "docs/retirement.md"

CHAT_RETIRES = (
    f"ACS Chat retires on {RETIRES_ON}, and since 2026-10-23 new customers can't sign up for it; "
    "ACS_TOKEN_SCOPES holds a chat scope."
)
WHAT_TO_DO = f"Read {PAGE}: what ends, what stays, and what to do in each case."


def concerns_chat(token_scopes: Iterable[str]) -> bool:
    """Whether tokens with these scopes give access to a part of ACS that will be retired: `chat` and its parts."""
    return any(scope == "chat" or scope.startswith("chat.") for scope in token_scopes)
