"""A user's way through the API, with the client that openapi-python-client makes of its document.

`ACCESS_TOKEN=… python journey.py <service>` prints what came back, as JSON.
"""

import json
import os
import sys

from acs_auth.api.token import get_token, sign_out
from acs_auth.api.user import create_user, delete_user, get_user
from acs_auth.client import AuthenticatedClient
from acs_auth.models import AcsUser, AcsUserToken, Error400, Error401, Error404


def main(service: str, access_token: str) -> None:
    """Create, look, get a token, sign out, delete; then without a token."""
    with AuthenticatedClient(base_url=service, token=access_token) as api:
        created = create_user.sync_detailed(client=api)
        found = get_user.sync_detailed(client=api)
        issued = get_token.sync_detailed(client=api, scope="voip.join", minutes=60)
        too_much = get_token.sync_detailed(client=api, scope="everything")
        signed_out = sign_out.sync_detailed(client=api)
        deleted = delete_user.sync_detailed(client=api)
        gone = get_user.sync_detailed(client=api)
    with AuthenticatedClient(base_url=service, token="none") as stranger:  # noqa: S106
        refused = get_user.sync_detailed(client=stranger)
    answers = (created, found, issued, too_much, signed_out, deleted, gone, refused)
    assert isinstance(created.parsed, AcsUser)
    assert isinstance(found.parsed, AcsUser)
    assert isinstance(issued.parsed, AcsUserToken)
    assert isinstance(too_much.parsed, Error400)
    assert isinstance(gone.parsed, Error404)
    assert isinstance(refused.parsed, Error401)
    told = {
        "statuses": [answer.status_code for answer in answers],
        "created": created.parsed.acs_user_identity,
        "found": found.parsed.acs_user_identity,
        "token": issued.parsed.token,
        "issuedTo": issued.parsed.user.communication_user_id,
        "tooMuch": too_much.parsed.error,
        "gone": gone.parsed.error,
        "refused": refused.parsed.error,
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], os.environ["ACCESS_TOKEN"])
