"""The application: builds every part once, wires them, and closes them in order."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

from azure.core.settings import settings as azure_settings
from quart import Quart, request
from quart_cors import cors
from werkzeug.exceptions import RequestEntityTooLarge

from quart_app.acs.interface import ACS, AcsClient
from quart_app.acs.opening import open_acs_client
from quart_app.auth.access_tokens import AccessTokenValidator
from quart_app.auth.caller import Caller
from quart_app.auth.guard import Guard
from quart_app.auth.issuers import AcceptedTokens, accepted_tokens, sign_in
from quart_app.auth.signed_tokens import SignedTokens
from quart_app.auth.signing_keys import SigningKeys
from quart_app.auth.teams_exchange import TeamsExchange
from quart_app.auth.teams_tokens import TeamsTokenValidator
from quart_app.clouds import ENTRA
from quart_app.credentials import managed_identity, uses_managed_identity
from quart_app.identities import IdentityService, TokenCache
from quart_app.settings import AcsSettings, Environment, Settings
from quart_app.stores import open_mapping_store
from quart_app.telemetry.instruments import Telemetry
from quart_app.telemetry.logs import dropped_lines
from quart_app.telemetry.opening import open_telemetry
from quart_app.telemetry.pseudonyms import Pseudonyms
from quart_app.web.errors import RefusedWebsocket, register_error_handlers
from quart_app.web.limits import ConcurrencyLimit, RateLimit
from quart_app.web.middleware import stacked
from quart_app.web.observation import REQUEST_ID_HEADER, identify_requests, observing
from quart_app.web.proxies import behind_proxies
from quart_app.web.readiness import Readiness
from quart_app.web.request_targets import with_plain_paths
from quart_app.web.routes.docs import docs_routes
from quart_app.web.routes.health import health_routes
from quart_app.web.routes.older_names import older_name_routes
from quart_app.web.routes.openapi import openapi_document
from quart_app.web.routes.token import TEAMS_TOKEN_HEADER, TokenAnswers, token_routes
from quart_app.web.routes.user import user_routes
from quart_app.web.security_headers import with_security_headers
from upstream.http_session import new_http_session
from upstream.retrying import RetryPolicy

MAXIMUM_BODY_BYTES = 16 * 1024
"""No route needs a body. One up to this size is read and ignored, a larger one is refused."""


@asynccontextmanager
async def create_app(settings: Settings, telemetry: Telemetry | None = None) -> AsyncIterator[Quart]:
    """Build the application with every part open; leaving the context closes them, the last opened first.

    `telemetry` receives events; by default it is what the settings ask for. Raises `StoreMisconfigured` and
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
        store = await stack.enter_async_context(
            open_mapping_store(settings, retry, credential=credential, telemetry=telemetry)
        )
        acs = await stack.enter_async_context(
            open_acs_client(
                settings.acs,
                settings.entra,
                retry,
                credential,
                measure=telemetry.upstream(ACS),
                on_minted=telemetry.minted,
                on_deleted=telemetry.deleted,
            )
        )
        identities = IdentityService(
            store,
            acs,
            retry=retry,
            token_cache=_token_cache(settings.acs),
            on_lookup=telemetry.cache("mapping"),
        )
        stack.push_async_callback(identities.aclose)
        readiness = Readiness({"signing_keys": keys.check, "mapping_store": store.ping})
        stack.push_async_callback(readiness.aclose)
        _observe(telemetry, identities, readiness)
        keys.start()
        readiness.start()
        yield _wire(settings, accepted, keys, acs, identities, readiness, telemetry)


def _observe(telemetry: Telemetry, identities: IdentityService, readiness: Readiness) -> None:
    telemetry.gauge(
        "acs_auth.identities.pending",
        "{identity}",
        "ACS identities that were minted and are not known to be mapped",
        lambda: identities.pending,
    )
    telemetry.gauge(
        "acs_auth.identities.orphaned",
        "{identity}",
        "Surplus ACS identities that could not be deleted yet",
        lambda: identities.orphans,
    )
    telemetry.gauge("acs_auth.log.dropped", "{line}", "Log lines that nobody read in time", dropped_lines)
    telemetry.gauge("acs_auth.ready", "1", "Whether the service is ready: 1 or 0", lambda: int(readiness.ready))


def _wire(
    settings: Settings,
    accepted: AcceptedTokens,
    keys: SigningKeys,
    acs: AcsClient,
    identities: IdentityService,
    readiness: Readiness,
    telemetry: Telemetry,
) -> Quart:
    app = Quart(__name__, static_folder=None)
    app.asgi_websocket_class = RefusedWebsocket
    app.url_map.strict_slashes = False
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
            on_lookup=telemetry.cache("access_token"),
        ),
        settings.server.request_deadline_seconds,
        *_admission_checks(settings),
    )
    teams = settings.teams
    teams_tokens = TeamsTokenValidator(signed_tokens, teams.client_ids, teams.audiences) if accepted.is_entra else None
    answers = TokenAnswers(identities, TeamsExchange(acs, teams_tokens))
    concurrency = ConcurrencyLimit(settings.server.max_concurrent_requests)
    app.asgi_app = stacked(  # type: ignore[assignment,method-assign]
        app.asgi_app,
        # The outermost first: each sees the request before, and the answer after, those below it.
        behind_proxies(settings.server.trusted_proxy_hops),
        with_plain_paths,
        concurrency,
        observing(telemetry),
        with_security_headers,
    )
    identify_requests(app)
    register_error_handlers(
        app,
        settings.entra.authority_host,
        stack_traces=settings.server.environment is Environment.DEVELOPMENT,
    )
    app.before_request(concurrency.refuse)
    app.before_request(_read_body)
    app.register_blueprint(user_routes(identities, guard))
    app.register_blueprint(token_routes(answers, guard))
    app.register_blueprint(older_name_routes(identities, answers, guard))
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


def _admission_checks(settings: Settings) -> Iterator[Callable[[Caller], None]]:
    hash_key = settings.telemetry.log_hash_key
    yield Pseudonyms(hash_key.get_secret_value() if hash_key else None).note
    if settings.server.rate_limit_requests_per_minute:
        rate_limit = RateLimit(settings.server.rate_limit_requests_per_minute)
        yield lambda caller: rate_limit.count(caller.user)


def _token_cache(acs: AcsSettings) -> TokenCache | None:
    return TokenCache(acs.token_reuse_minutes * 60, acs.token_scopes) if acs.token_reuse_minutes else None


async def _read_body() -> None:
    """Read the body before anything else, so that one that is too large is refused on every route."""
    if request.content_length is not None and request.content_length > MAXIMUM_BODY_BYTES:
        raise RequestEntityTooLarge
    # Without either header there is no body (RFC 9112, section 6.3), except in HTTP/2.
    if request.content_length or "Transfer-Encoding" in request.headers or not request.http_version.startswith("1"):
        await request.get_data(cache=False)
