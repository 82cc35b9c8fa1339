"""The application: builds every part once, wires them, and closes them in order."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from azure.core.settings import settings as azure_settings
from quart import Quart, Response, request
from quart_cors import cors
from werkzeug.exceptions import RequestEntityTooLarge

from quart_app.acs.interface import ACS, AcsClient
from quart_app.acs.opening import open_acs_client
from quart_app.auth.access_tokens import AccessTokenValidator
from quart_app.auth.caller import Caller
from quart_app.auth.doors import Door, OpenDoor, SignIn, check_keys, doors
from quart_app.auth.guard import Guard, guarded_paths
from quart_app.auth.signing_keys import SigningKeys
from quart_app.auth.teams_exchange import TeamsExchange
from quart_app.auth.teams_tokens import TeamsTokenValidator
from quart_app.auth.token_explanation import explained_by
from quart_app.credentials import MANAGED_IDENTITY, managed_identity, uses_managed_identity
from quart_app.identities import IdentityService, TokenCache, TokenPolicy
from quart_app.settings import AcsSettings, DoorName, Settings
from quart_app.stores import accepts_unsealed, open_mapping_store
from quart_app.telemetry.instruments import Telemetry
from quart_app.telemetry.logs import dropped_lines
from quart_app.telemetry.opening import open_telemetry
from quart_app.telemetry.pseudonyms import Pseudonyms
from quart_app.web.bodies import BODY_SECONDS, MAXIMUM_BODY_BYTES
from quart_app.web.errors import RefusedWebsocket, refusal_when_busy, register_error_handlers
from quart_app.web.limits import ConcurrencyLimit, RateLimit, refusing_early
from quart_app.web.middleware import stacked
from quart_app.web.observation import REQUEST_ID_HEADER, identify_requests, observing
from quart_app.web.overload import Lateness
from quart_app.web.proxies import behind_proxies
from quart_app.web.readiness import Readiness
from quart_app.web.request_targets import with_plain_paths
from quart_app.web.routes.console import console_routes
from quart_app.web.routes.docs import docs_routes
from quart_app.web.routes.health import health_routes
from quart_app.web.routes.older_names import older_name_routes
from quart_app.web.routes.openapi import openapi_document
from quart_app.web.routes.pages import page_routes
from quart_app.web.routes.protected_resource import protected_resource_routes
from quart_app.web.routes.token import TokenAnswers, token_routes
from quart_app.web.routes.user import user_routes
from quart_app.web.routes.users import RESOLVE_PATH, resolve_routes
from quart_app.web.security_headers import with_security_headers
from upstream.http_session import new_http_session
from upstream.retrying import RetryPolicy


@asynccontextmanager
async def create_app(
    settings: Settings, telemetry: Telemetry | None = None, stop: asyncio.Event | None = None
) -> AsyncIterator[Quart]:
    """Build the application with every part open; leaving the context closes them, the last opened first.

    Once `stop` is set it is not ready, and every answer ends its connection. `telemetry` receives events; by default it
    is what the settings ask for. Raises `StoreMisconfigured`, `StoreUnavailable` and `ManagedIdentityError` when the
    store can't be opened.
    """
    # Traces are made by `telemetry`. The SDKs' own would hold URLs with ids, and are looked for at each call.
    azure_settings.tracing_enabled = False
    async with AsyncExitStack() as stack:
        if telemetry is None:
            telemetry = await stack.enter_async_context(open_telemetry(settings.telemetry))
        opened = [await stack.enter_async_context(_opened(door, telemetry)) for door in doors(settings)]
        retry = RetryPolicy(on_retry=telemetry.retried)
        credential = None
        if uses_managed_identity(settings):
            measure = telemetry.upstream(MANAGED_IDENTITY)
            credential = await stack.enter_async_context(managed_identity(settings.entra, retry, measure))
        store = await stack.enter_async_context(
            open_mapping_store(settings, retry, credential=credential, telemetry=telemetry)
        )
        acs = await stack.enter_async_context(
            open_acs_client(
                settings.acs,
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
            flight_limit=settings.server.max_concurrent_requests,
            on_lookup=telemetry.cache("mapping"),
            on_refused=lambda: telemetry.refused("flights"),
        )
        stack.push_async_callback(identities.aclose)
        stop = stop or asyncio.Event()
        readiness = Readiness({"signing_keys": partial(check_keys, opened), "mapping_store": store.ping}, stop=stop)
        stack.push_async_callback(readiness.aclose)
        _observe(settings, telemetry, opened, identities, readiness)
        for each in opened:
            each.keys.start()
        readiness.start()
        lateness = Lateness()
        stack.push_async_callback(lateness.aclose)
        lateness.start()
        app = _wire(settings, opened, acs, identities, readiness, telemetry, lateness)
        _close_connections_after(stop, app)
        yield app


@asynccontextmanager
async def _opened(door: Door, telemetry: Telemetry) -> AsyncIterator[OpenDoor]:
    """The door with connections of its own: an issuer that does not answer must not hold up the other door's."""
    async with new_http_session(connections=8, unpack=True) as session:
        measure = telemetry.upstream(door.name)
        keys = SigningKeys(session, door.discovery_urls, issuer=door.issuer, measure=measure)
        try:
            yield OpenDoor(door, keys)
        finally:
            await keys.aclose()


def _observe(
    settings: Settings,
    telemetry: Telemetry,
    opened: Sequence[OpenDoor],
    identities: IdentityService,
    readiness: Readiness,
) -> None:
    telemetry.gauge(
        "acs_auth.signing_keys.age",
        "s",
        "Seconds since signing keys were last fetched, of the issuer for which that is longest ago",
        lambda: int(max(each.keys.age for each in opened)),
    )
    telemetry.gauge(
        "acs_auth.identities.pending",
        "{identity}",
        "ACS identities that were minted and are not known to be mapped",
        lambda: identities.pending,
    )
    telemetry.gauge(
        "acs_auth.identities.orphaned",
        "{identity}",
        "Surplus ACS identities that could not be deleted yet, or were left behind with an unreadable mapping",
        lambda: identities.orphans,
    )
    telemetry.gauge(
        "acs_auth.deletions.unfinished",
        "{deletion}",
        "Deletions that were begun and are not finished",
        lambda: identities.unfinished_deletions,
    )
    telemetry.gauge(
        "acs_auth.mappings.seal_key_missing",
        "{mapping}",
        "Mappings that were met and are sealed by a key that GRAPH_SEAL_KEYS does not hold",
        lambda: identities.without_seal_key,
    )
    telemetry.gauge(
        "acs_auth.mappings.unsealed_accepted",
        "1",
        "Whether mappings without a seal are accepted (GRAPH_ACCEPT_UNSEALED_UNTIL): 1 or 0",
        lambda: int(accepts_unsealed(settings)),
    )
    telemetry.gauge("acs_auth.log.dropped", "{line}", "Log lines that nobody read in time", dropped_lines)
    telemetry.gauge("acs_auth.ready", "1", "Whether the service is ready: 1 or 0", lambda: int(readiness.ready))


def _wire(
    settings: Settings,
    opened: Sequence[OpenDoor],
    acs: AcsClient,
    identities: IdentityService,
    readiness: Readiness,
    telemetry: Telemetry,
    lateness: Lateness,
) -> Quart:
    app = Quart(__name__, static_folder=None)
    app.asgi_websocket_class = RefusedWebsocket
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # there is one spelling of a path; the others would get a redirect
    app.config["MAX_CONTENT_LENGTH"] = MAXIMUM_BODY_BYTES
    app.config["BODY_TIMEOUT"] = BODY_SECONDS
    access_tokens = AccessTokenValidator(opened, on_lookup=telemetry.cache("access_token"), on_door=telemetry.came_by)
    concurrency = ConcurrencyLimit(
        settings.server.max_concurrent_requests,
        lateness=lateness,
        is_known=access_tokens.remembers,
        on_refused=telemetry.refused,
    )
    per_minute = settings.server.rate_limit_requests_per_minute
    rate_limit = RateLimit(per_minute) if per_minute else None
    guard = Guard(
        access_tokens,
        settings.server.request_deadline_seconds,
        *_admission_checks(settings, concurrency, rate_limit),
    )
    teams = settings.teams
    teams_tokens: dict[DoorName, TeamsTokenValidator] = {
        each.door.name: TeamsTokenValidator(each.tokens, teams.client_ids, teams.audiences)
        for each in opened
        if each.door.name is DoorName.ENTRA
    }
    lifetime = settings.acs.token_lifetime_minutes
    policies = {each.door.name: TokenPolicy(each.door.token_scopes, lifetime) for each in opened}
    answers = TokenAnswers(identities, policies, TeamsExchange(acs, teams_tokens))
    app.asgi_app = stacked(  # type: ignore[assignment,method-assign]
        app.asgi_app,
        # The outermost first: each sees the request before, and the answer after, those below it.
        behind_proxies(settings.server.trusted_proxy_hops),
        with_plain_paths,
        concurrency,
        observing(telemetry, told_more=settings.server.in_development),
        with_security_headers,
        refusing_early(refusal_when_busy),
    )
    identify_requests(app)
    register_error_handlers(
        app,
        settings.entra.authority_host,
        told_more=settings.server.in_development,
    )
    app.before_request(concurrency.refuse)
    app.before_request(_refuse_large_bodies)
    app.after_request(_close_after_ambiguous_framing)
    app.register_blueprint(user_routes(identities, guard))
    app.register_blueprint(token_routes(answers, guard))
    app.register_blueprint(older_name_routes(identities, answers, guard))
    entra = settings.entra
    scopes_besides = {}
    if entra.resolve_scope is not None:
        scopes_besides[RESOLVE_PATH] = entra.in_full(entra.resolve_scope)
        app.register_blueprint(resolve_routes(identities, guard, entra.resolve_scope, rate_limit))
    app.register_blueprint(health_routes(readiness))
    app.register_blueprint(
        protected_resource_routes([each.door for each in opened], guarded_paths(app), scopes_besides)
    )

    def sign_ins() -> list[SignIn]:
        return [each.sign_in for each in opened if each.sign_in is not None]

    document = openapi_document(app)
    app.register_blueprint(docs_routes(document, sign_ins, settings.docs))
    if settings.server.shows_console:
        explained = partial(explained_by, opened) if settings.server.in_development else None
        app.register_blueprint(console_routes(sign_ins, settings.docs, document, explained))
    app.register_blueprint(page_routes(with_front_page=not settings.server.shows_console))
    if settings.cors.allowed_origins:
        return cors(
            app,
            allow_origin=settings.cors.allowed_origins,
            # Whatever a client asks to send, as the samples do: an API with bearer tokens is protected by its list of
            # origins. Tracing libraries and HTTP clients add headers of their own.
            allow_headers=["*"],
            allow_methods=["GET", "POST", "DELETE"],
            expose_headers=["WWW-Authenticate", "Retry-After", REQUEST_ID_HEADER],
            max_age=3600,
        )
    return app


def _admission_checks(
    settings: Settings, concurrency: ConcurrencyLimit, rate_limit: RateLimit | None
) -> Iterator[Callable[[Caller], None]]:
    yield lambda caller: concurrency.admit()
    hash_key = settings.telemetry.log_hash_key
    yield Pseudonyms(hash_key.get_secret_value() if hash_key else None).note
    if rate_limit is not None:
        yield lambda caller: rate_limit.count(caller.user)


def _token_cache(acs: AcsSettings) -> TokenCache | None:
    return TokenCache(acs.token_reuse_minutes * 60) if acs.token_reuse_minutes else None


async def _refuse_large_bodies() -> None:
    # No body is waited for here: a client that announces one and sends none must not hold a place. A route that takes
    # one reads it when its caller is known. Hypercorn closes the connection of a request whose body was not read.
    if request.content_length is not None and request.content_length > MAXIMUM_BODY_BYTES:
        raise RequestEntityTooLarge


async def _close_after_ambiguous_framing(response: Response) -> Response:
    # RFC 9112, section 6.1: with both headers a request may be an attempt to smuggle another one.
    if "Transfer-Encoding" in request.headers and "Content-Length" in request.headers:
        response.headers["Connection"] = "close"
    return response


def _close_connections_after(stop: asyncio.Event, app: Quart) -> None:
    """While stopping, tell HTTP/1 clients that their connection ends, so that no request is sent on it any more."""

    @app.after_request
    async def close(response: Response) -> Response:
        if stop.is_set() and request.http_version.startswith("1"):
            response.headers["Connection"] = "close"
        return response
