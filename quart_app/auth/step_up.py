"""Step-up: the caller must sign in again and prove more before this service may go on for them."""

from collections.abc import Iterator
from contextlib import contextmanager

from quart_app.auth.caller import Caller
from quart_app.auth.on_behalf_of.errors import ClaimsChallengeRequired
from storage.mapping import StoreAccessDenied


class StepUpRequired(Exception):
    """The client must sign in again with `claims`, as JSON, at the caller's tenant `tenant_id`.

    https://learn.microsoft.com/entra/identity-platform/claims-challenge
    """

    def __init__(self, claims: str, tenant_id: str) -> None:
        super().__init__("The caller must sign in again with further claims.")
        self.claims = claims
        self.tenant_id = tenant_id


class StepUpNotPossible(Exception):
    """A step-up is required, but the client did not declare that it understands a claims challenge (`cp1`).

    The `xms_cc` claim of the access token is the authoritative sign; a client without it gets a 403
    (https://learn.microsoft.com/entra/identity-platform/claims-challenge#receiving-xms_cc-claim-in-an-access-token).
    """

    def __init__(self) -> None:
        super().__init__("The caller must sign in again with further claims, which the client can't be told.")


@contextmanager
def step_up_for(caller: Caller) -> Iterator[None]:
    """Turn a challenge of Entra ID or Microsoft Graph into `StepUpRequired` or `StepUpNotPossible` for this caller."""
    try:
        yield
    except (ClaimsChallengeRequired, StoreAccessDenied) as error:
        if not error.claims:
            raise
        if not caller.understands_claims_challenges:
            raise StepUpNotPossible from error
        raise StepUpRequired(error.claims, caller.user.issuer) from error
