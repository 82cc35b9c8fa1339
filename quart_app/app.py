"""The application: builds every part once, wires them, and closes them in order."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from quart import Quart, Response, request
from quart_cors import cors
from werkzeug.exceptions import RequestEntityTooLarge

from quart_app.acs_communication import AcsCommunication, AcsOptions
from quart_app.auth.access_tokens import AccessTokenValidator
from quart_app.auth.guard import Guard
from quart_app.auth.signed_tokens import SignedTokens
from quart_app.auth.signing_keys import SigningKeys
from quart_app.auth.teams_tokens import TeamsTokenValidator
from quart_app.communication import Communication
from quart_app.errors import register_error_handlers
from quart_app.identities import IdentityService
from quart_app.mapping_store import open_mapping_store
from quart_app.observability import observe_requests
from quart_app.readiness import Readiness
from quart_app.routes.docs import docs_routes
from quart_app.routes.health import health_routes
from quart_app.routes.named import named_routes
from quart_app.routes.openapi import openapi_document
from quart_app.routes.token import TEAMS_TOKEN_HEADER, TokenAnswers, token_routes
from quart_app.routes.user import user_routes
from quart_app.settings import AcsSettings, EntraSettings, Environment, Settings
from storage.http_session import new_http_session
from storage.retrying import RetryPolicy

MAXIMUM_BODY_BYTES = 16 * 1024
"""No route needs a body. One up to this size is read and ignored, a larger one is refused."""


@asynccontextmanager
async def create_app(settings: Settings) -> AsyncIterator[Quart]:
    """Build the application with every part open; leaving the context closes them, the last opened first.

    Raises `StoreMisconfigured` and `StoreUnavailable` when the store can't be opened.
    """
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(new_http_session(connections=8, unpack=True))
        keys = SigningKeys(session, _discovery_urls(settings.entra))
        stack.push_async_callback(keys.aclose)
        retry = RetryPolicy()
        store = await stack.enter_async_context(open_mapping_store(settings, retry))
        communication = AcsCommunication(_acs_options(settings.acs), retry)
        stack.push_async_callback(communication.aclose)
        identities = IdentityService(store, communication, retry=retry)
        stack.push_async_callback(identities.aclose)
        readiness = Readiness({"signing_keys": keys.check, "mapping_store": store.ping})
        stack.push_async_callback(readiness.aclose)
        keys.start()
        readiness.start()
        yield _wire(settings, keys, communication, identities, readiness)


def _wire(
    settings: Settings,
    keys: SigningKeys,
    communication: Communication,
    identities: IdentityService,
    readiness: Readiness,
) -> Quart:
    entra = settings.entra
    app = Quart(__name__, static_folder=None)
    app.url_map.strict_slashes = False
    app.config["MAX_CONTENT_LENGTH"] = MAXIMUM_BODY_BYTES
    signed_tokens = SignedTokens(keys, entra.tenants, entra.authority_host)
    guard = Guard(
        AccessTokenValidator(signed_tokens, entra.accepted_audiences, entra.required_scope),
        settings.server.request_deadline_seconds,
    )
    answers = TokenAnswers(identities, communication, TeamsTokenValidator(signed_tokens, settings.teams.client_ids))
    observe_requests(app)
    register_error_handlers(
        app,
        f"{entra.authority_host}/{entra.tenant_id}/oauth2/v2.0/authorize",
        stack_traces=settings.server.environment is Environment.DEVELOPMENT,
    )
    app.before_request(_read_body)
    app.after_request(_secure)
    app.register_blueprint(user_routes(identities, guard))
    app.register_blueprint(token_routes(answers, guard))
    app.register_blueprint(named_routes(identities, answers, guard))
    app.register_blueprint(health_routes(readiness))
    app.register_blueprint(docs_routes(openapi_document(app, entra), entra, settings.docs))
    if settings.cors.allowed_origins:
        return cors(
            app,
            allow_origin=settings.cors.allowed_origins,
            allow_headers=["Authorization", TEAMS_TOKEN_HEADER],
            allow_methods=["GET", "POST", "DELETE"],
            expose_headers=["WWW-Authenticate", "Retry-After", "X-Request-Id"],
            max_age=3600,
        )
    return app


def _acs_options(acs: AcsSettings) -> AcsOptions:
    return AcsOptions(
        token_scopes=acs.token_scopes,
        token_lifetime_minutes=acs.token_lifetime_minutes,
        connection_string=acs.connection_string.get_secret_value(),
    )


def _discovery_urls(entra: EntraSettings) -> list[str]:
    """Both versions' metadata of each tenant: which one a token has is decided by the API's registration."""
    return [
        f"{entra.authority_host}/{tenant}{version}/.well-known/openid-configuration"
        for tenant in entra.tenants
        for version in ("/v2.0", "")
    ]


async def _read_body() -> None:
    """Read the body before anything else, so that one that is too large is refused on every route."""
    if request.content_length is not None and request.content_length > MAXIMUM_BODY_BYTES:
        raise RequestEntityTooLarge
    await request.get_data(cache=False)


async def _secure(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
