"""The ACS client by the settings."""

import pytest

from local_azure.environment import LocalAzure
from quart_app.acs.opening import open_acs_client
from quart_app.settings import load_settings
from upstream.retrying import RetryPolicy


@pytest.mark.parametrize(("probing", "scopes", "minutes"), [(False, "chat,voip", 120), (True, "chat.join.limited", 60)])
async def test_a_token_that_only_probes_has_the_least_scope_and_the_shortest_life(
    configured: pytest.MonkeyPatch, local_azure: LocalAzure, probing: bool, scopes: str, minutes: int
) -> None:
    configured.setenv("ACS_TOKEN_LIFETIME_MINUTES", "120")
    settings = load_settings(None)
    async with open_acs_client(settings.acs, RetryPolicy(attempts=1), None, probing=probing) as client:
        identity = await client.create_identity()
        claims = local_azure.acs.verify_token((await client.issue_token(identity)).token)
    assert claims["acsScope"] == scopes
    assert claims["exp"] - claims["iat"] == minutes * 60
