"""What callers may have: never more than they ask for, and never more than the operator allows."""

from hypothesis import given
from hypothesis import strategies as st

from quart_app.acs.interface import TokenRequest
from quart_app.identities import TokenPolicy
from quart_app.identities.token_policy import LifetimeNotAllowed, ScopeNotAllowed
from quart_app.settings import INCLUDED_SCOPES

# What each scope lets a caller do, told apart from the service's own table: chat > chat.join > chat.join.limited.
RIGHTS = {
    "chat.join.limited": {"join where limited"},
    "chat.join": {"join where limited", "join chats"},
    "chat": {"join where limited", "join chats", "make chats"},
    "voip.join": {"join calls"},
    "voip": {"join calls", "make calls"},
}


def rights(scopes: tuple[str, ...]) -> set[str]:
    return {right for scope in scopes for right in RIGHTS[scope]}


known = st.sampled_from(sorted(RIGHTS))
allowed_scopes = st.lists(known, min_size=1, max_size=5, unique=True).map(tuple)
asked_scopes = st.none() | st.lists(known | st.sampled_from(["", "VOIP", "voip ", "chat.*", "admin"]), max_size=4).map(
    tuple
)
asked_minutes = st.none() | st.integers(-1, 1500) | st.sampled_from([0, 59, 60, 61, 1440, 1441])


@given(allowed=allowed_scopes, longest=st.integers(60, 1440), scopes=asked_scopes, minutes=asked_minutes)
def test_what_is_issued_is_never_more_than_asked_and_never_more_than_allowed(
    allowed: tuple[str, ...], longest: int, scopes: tuple[str, ...] | None, minutes: int | None
) -> None:
    policy = TokenPolicy(allowed, longest)
    try:
        issued = policy.narrowed(scopes, minutes)
    except ScopeNotAllowed:
        assert scopes is not None
        assert not scopes or not set(scopes) <= RIGHTS.keys() or not rights(scopes) <= rights(allowed)
        return
    except LifetimeNotAllowed:
        assert minutes is not None
        assert not 60 <= minutes <= longest
        return
    assert rights(issued.scopes) <= rights(allowed)
    assert rights(issued.scopes) == rights(allowed if scopes is None else scopes)
    assert 60 <= issued.minutes <= longest
    assert issued.minutes == (longest if minutes is None else minutes)


def test_every_scope_of_acs_is_known() -> None:
    assert INCLUDED_SCOPES.keys() == RIGHTS.keys()


def test_the_order_and_repetition_of_scopes_make_no_other_request() -> None:
    policy = TokenPolicy(("chat", "voip"), 60)
    asked = policy.narrowed(("voip", "chat", "voip"), None)
    assert asked == policy.narrowed(None, None) == TokenRequest(("chat", "voip"), 60)
