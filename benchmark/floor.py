"""The least that Quart on Hypercorn and uvloop can cost: a route that does nothing, and two with one call of ACS."""

import asyncio
import json
import os
import ssl
from datetime import timedelta

import aiohttp
import hypercorn.asyncio
import uvloop
from azure.communication.identity import CommunicationUserIdentifier
from azure.communication.identity.aio import CommunicationIdentityClient
from hypercorn.config import Config
from quart import Quart, Response
from yarl import URL

CALLED = "FLOOR_CALLED_URL"
CONNECTION_STRING = "ACS_CONNECTION_STRING"
IDENTITY = "FLOOR_ACS_USER_ID"


def application() -> Quart:
    """Three routes.

    `/nothing`
    `/one-call`      posts to the URL in the variable `CALLED` and hands the answer on
    `/one-sdk-call`  gets a token for the identity in the variable `IDENTITY` by the ACS SDK as it comes
    """
    app = Quart(__name__, static_folder=None)
    url = URL(os.environ[CALLED], encoded=True)
    user = CommunicationUserIdentifier(os.environ[IDENTITY])
    body = json.dumps({"scopes": ["chat", "voip"], "expiresInMinutes": 1440}).encode()

    @app.before_serving
    async def connect() -> None:
        connector = aiohttp.TCPConnector(ssl=ssl.create_default_context())
        app.extensions["session"] = aiohttp.ClientSession(connector=connector)
        client = CommunicationIdentityClient.from_connection_string(os.environ[CONNECTION_STRING])
        app.extensions["client"] = client

    @app.after_serving
    async def disconnect() -> None:
        await app.extensions["session"].close()
        await app.extensions["client"].close()

    @app.get("/nothing")
    async def nothing() -> Response:
        return Response('{"status":"ok"}', mimetype="application/json")

    @app.get("/one-call")
    async def one_call() -> Response:
        headers = {"Content-Type": "application/json"}
        async with app.extensions["session"].post(url, data=body, headers=headers) as answer:
            return Response(await answer.read(), answer.status, mimetype="application/json")

    @app.get("/one-sdk-call")
    async def one_sdk_call() -> Response:
        issued = await app.extensions["client"].get_token(user, ["chat", "voip"], token_expires_in=timedelta(days=1))
        return Response(json.dumps({"token": issued.token}), mimetype="application/json")

    return app


async def serve(port: int) -> None:
    """Serve until SIGTERM."""
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.accesslog = config.errorlog = None
    config.include_server_header = False
    await hypercorn.asyncio.serve(application(), config)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(int(os.environ["PORT"])))
