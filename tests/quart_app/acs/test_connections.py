"""Which calls of ACS share a connection."""

from contextlib import aclosing
from dataclasses import replace

from local_azure.environment import LocalAzure
from quart_app.acs.client import AcsOptions, SdkAcsClient
from quart_app.settings import AcsConnectionString
from tests.support.forwarder import forwarding


async def test_a_mint_has_a_connection_of_its_own_and_tokens_share_one(local_azure: LocalAzure) -> None:
    """A mint that is sent on a connection that is cut by now may have been carried out, and nobody learns its id."""
    told = AcsConnectionString.parse(local_azure.acs.service_environment()["ACS_CONNECTION_STRING"])
    port = int(told.endpoint.rstrip("/").rpartition(":")[2])
    async with forwarding(port) as name:
        at_name = replace(told, endpoint=f"https://localhost:{name.port}")
        async with aclosing(SdkAcsClient(AcsOptions(("voip",), connection_string=at_name))) as client:
            identities = [await client.create_identity() for _ in range(3)]
            assert name.connections == {port: 3}
            for identity in identities:
                await client.issue_token(identity)
            assert name.connections == {port: 4}
