"""The application: builds every part once, wires them, and closes them in order."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from azure.core.settings import settings as azure_settings
from quart import Quart, request
from quart_cors import cors
from werkzeug.exceptions import RequestEntityTooLarge

from quart_app.acs_communication import AcsCommunication, AcsOptions
from quart_app.auth.access_tokens import AccessTokenValidator
from quart_app.auth.caller import Caller
from quart_app.auth.guard import Guard
from quart_app.auth.issuers import AcceptedTokens, accepted_tokens, sign_in
from quart_app.auth.signed_tokens import SignedTokens
from quart_app.auth.signing_keys import SigningKeys
from quart_app.auth.teams_tokens import TeamsTokenValidator
from quart_app.communication import Communication
from quart_app.credentials import managed_identity, uses_managed_identity
from quart_app.errors import RefusedWebsocket, register_error_handlers
from quart_app.identities import IdentityService, KeptTokens
from quart_app.limits import ConcurrencyLimit, RateLimit
from quart_app.mapping_store import open_mapping_store
from quart_app.observability import REQUEST_ID_HEADER, Pseudonyms, observe_requests
from quart_app.readiness import Readiness
from quart_app.request_targets import with_plain_paths
from quart_app.routes.docs import docs_routes
from quart_app.routes.health import health_routes
from quart_app.routes.named import named_routes
from quart_app.routes.openapi import openapi_document
from quart_app.routes.token import TEAMS_TOKEN_HEADER, TokenAnswers, token_routes
from quart_app.routes.user import user_routes
from quart_app.security_headers import with_security_headers
from quart_app.settings import AcsSettings, Environment, Settings
from quart_app.telemetry import ENTRA, MeasuredCommunication, Telemetry, open_telemetry
from storage.http_session import new_http_session
from storage.retrying import RetryPolicy

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

MAXIMUM_BODY_BYTES = 16 * 1024
"""No route needs a body. One up to this size is read and ignored, a larger one is refused."""


@asynccontextmanager
async def create_app(settings: Settings, telemetry: Telemetry | None = None) -> AsyncIterator[Quart]:
    """Build the application with every part open; leaving the context closes them, the last opened first.

    `telemetry` is told what happens; by default that which the settings ask for. Raises `StoreMisconfigured` and
    `StoreUnavailable` when the store can't be opened.
    """
    # Traces are made by `telemetry`. The SDKs' own would hold URLs with ids, and are looked for at each call.
    azure_settings.tracing_enabled = False
    async with AsyncExitStack() as stack:
        if telemetry is None:
            telemetry = await stack.enter_async_context(open_telemetry(settings.telemetry))
        session = await stack.enter_async_context(new_http_session(connections=8, unpack=True))
        accepted = accepted_tokens(settings)
        keys = SigningKeys(session, accepted.discovery_urls, issuer=accepted.issuer, measure=telemetry.upstream(ENTRA))
        stack.push_async_callback(keys.aclose)
        retry = RetryPolicy(on_retry=telemetry.retried)
        credential = None
        if uses_managed_identity(settings):
            credential = await stack.enter_async_context(managed_identity(settings.entra))
        store = await stack.enter_async_context(open_mapping_store(settings, retry, credential, telemetry))
        acs = AcsCommunication(_acs_options(settings.acs, credential), retry)
        communication = MeasuredCommunication(acs, telemetry)
        stack.push_async_callback(communication.aclose)
        identities = IdentityService(
            store,
            communication,
            retry=retry,
            kept_tokens=_kept_tokens(settings.acs),
            looked_up=telemetry.cache("mapping"),
        )
        stack.push_async_callback(identities.aclose)
        readiness = Readiness({"signing_keys": keys.check, "mapping_store": store.ping})
        stack.push_async_callback(readiness.aclose)
        _observe(telemetry, identities, readiness)
        keys.start()
        readiness.start()
        yield _wire(settings, accepted, keys, communication, identities, readiness, telemetry)


def _observe(telemetry: Telemetry, identities: IdentityService, readiness: Readiness) -> None:
    telemetry.gauge(
        "acs_auth.identities.unsettled",
        "{identity}",
        "ACS identities that were minted and are not known to be mapped",
        lambda: identities.unsettled,
    )
    telemetry.gauge(
        "acs_auth.identities.leftover",
        "{identity}",
        "Surplus ACS identities that could not be deleted yet",
        lambda: identities.leftovers,
    )
    telemetry.gauge("acs_auth.ready", "1", "Whether the service is ready: 1 or 0", lambda: int(readiness.ready))


def _wire(
    settings: Settings,
    accepted: AcceptedTokens,
    keys: SigningKeys,
    communication: Communication,
    identities: IdentityService,
    readiness: Readiness,
    telemetry: Telemetry,
) -> Quart:
    app = Quart(__name__, static_folder=None)
    app.asgi_websocket_class = RefusedWebsocket
    app.url_map.strict_slashes = False
    app.asgi_app = with_security_headers(with_plain_paths(app.asgi_app))  # type: ignore[method-assign]
    app.url_map.merge_slashes = False  # there is one spelling of a path; the others would get a redirect
    app.config["MAX_CONTENT_LENGTH"] = MAXIMUM_BODY_BYTES
    app.config["BODY_TIMEOUT"] = settings.server.request_deadline_seconds
    signed_tokens = SignedTokens(keys, accepted.rules)
    guard = Guard(
        AccessTokenValidator(
            signed_tokens,
            accepted.audiences,
            accepted.scope,
            role=accepted.role,
            looked_up=telemetry.cache("access_token"),
        ),
        settings.server.request_deadline_seconds,
        *_admissions(settings),
    )
    teams = settings.teams
    teams_tokens = TeamsTokenValidator(signed_tokens, teams.client_ids, teams.audiences) if accepted.is_entra else None
    answers = TokenAnswers(identities, communication, teams_tokens)
    observe_requests(app, telemetry)
    register_error_handlers(
        app,
        settings.entra.authority_host,
        stack_traces=settings.server.environment is Environment.DEVELOPMENT,
    )
    ConcurrencyLimit(app, settings.server.max_concurrent_requests)
    app.before_request(_read_body)
    app.register_blueprint(user_routes(identities, guard))
    app.register_blueprint(token_routes(answers, guard))
    app.register_blueprint(named_routes(identities, answers, guard))
    app.register_blueprint(health_routes(readiness))
    app.register_blueprint(docs_routes(openapi_document(app), lambda: sign_in(settings, keys.sign_in), settings.docs))
    if settings.cors.allowed_origins:
        return cors(
            app,
            allow_origin=settings.cors.allowed_origins,
            allow_headers=["Authorization", "Cache-Control", TEAMS_TOKEN_HEADER, REQUEST_ID_HEADER],
            allow_methods=["GET", "POST", "DELETE"],
            expose_headers=["WWW-Authenticate", "Retry-After", REQUEST_ID_HEADER],
            max_age=3600,
        )
    return app


def _admissions(settings: Settings) -> Iterator[Callable[[Caller], None]]:
    hash_key = settings.telemetry.log_hash_key
    yield Pseudonyms(hash_key.get_secret_value() if hash_key else None).note
    if settings.server.rate_limit_requests_per_minute:
        rate_limit = RateLimit(settings.server.rate_limit_requests_per_minute)
        yield lambda caller: rate_limit.count(caller.user)


def _acs_options(acs: AcsSettings, credential: "AsyncTokenCredential | None") -> AcsOptions:
    return AcsOptions(
        token_scopes=acs.token_scopes,
        token_lifetime_minutes=acs.token_lifetime_minutes,
        connection_string=acs.connection_string.get_secret_value() if acs.connection_string else None,
        endpoint=acs.endpoint,
        credential=credential if acs.endpoint else None,
    )


def _kept_tokens(acs: AcsSettings) -> KeptTokens | None:
    return KeptTokens(acs.token_reuse_minutes * 60, acs.token_scopes) if acs.token_reuse_minutes else None


async def _read_body() -> None:
    """Read the body before anything else, so that one that is too large is refused on every route."""
    if request.content_length is not None and request.content_length > MAXIMUM_BODY_BYTES:
        raise RequestEntityTooLarge
    # Without either header there is no body (RFC 9112, section 6.3), except in HTTP/2.
    if request.content_length or "Transfer-Encoding" in request.headers or not request.http_version.startswith("1"):
        await request.get_data(cache=False)
