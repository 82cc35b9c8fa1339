"""Faults between settings of which each is sound by itself."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from quart_app.clouds import CLOUDS, cloud_of, issuing_host
from quart_app.settings.groups import (
    CLIENT_CREDENTIALS,
    NO_SEAL_KEYS,
    AcsSettings,
    EntraSettings,
    Environment,
    OidcSettings,
    StorageBackend,
    variable_name,
)
from quart_app.settings.values import included_scopes


def contradictions(groups: Mapping[str, Any], now: datetime) -> Iterable[str]:
    """Faults between concerns, of those whose own settings are sound, and what is no longer valid at `now`."""
    yield from _door_contradictions(groups)
    yield from _cloud_contradictions(groups)
    server, entra, storage, cosmos = (groups.get(name) for name in ("server", "entra", "storage", "cosmos"))
    backend = storage.backend if storage else None
    oidc = groups.get("oidc")
    if entra and (entra.tenant_id or not (oidc and oidc.issuer)):
        given = entra.client_credentials
        if backend is StorageBackend.GRAPH and len(given) != 1:
            yield f"STORAGE_BACKEND=graph needs exactly one of {', '.join(CLIENT_CREDENTIALS)}."
        elif entra.client_secret and entra.client_certificate_path:
            yield "Set only one of ENTRA_CLIENT_SECRET and ENTRA_CLIENT_CERTIFICATE_PATH."
        yield from _outdated(entra, now)
        yield from _resolve_faults(entra, backend)
    graph = groups.get("graph")
    if backend is StorageBackend.GRAPH and graph and not graph.seal_keys:
        yield f"STORAGE_BACKEND=graph needs {NO_SEAL_KEYS}"
    if backend is StorageBackend.COSMOS and cosmos and not cosmos.endpoint:
        yield "STORAGE_BACKEND=cosmos needs COSMOS_ENDPOINT, such as https://NAME.documents.azure.com."
    if cosmos and cosmos.create_if_missing and (not server or server.environment is not Environment.DEVELOPMENT):
        yield "COSMOS_CREATE_IF_MISSING is only for ENVIRONMENT=development; elsewhere, deploy the container."
    if acs := groups.get("acs"):
        yield from _acs_faults(acs)
    if entra and not entra.managed_identity_client_id:
        if acs and acs.endpoint and not acs.connection_string:
            yield "ACS_ENDPOINT needs ENTRA_MANAGED_IDENTITY_CLIENT_ID, the managed identity that ACS is called with."
        if backend is StorageBackend.COSMOS and cosmos and not cosmos.key:
            yield "STORAGE_BACKEND=cosmos needs COSMOS_KEY or, better, ENTRA_MANAGED_IDENTITY_CLIENT_ID."


def _outdated(entra: EntraSettings, now: datetime) -> Iterable[str]:
    certificate = entra.client_certificate
    if certificate and certificate.ends <= now:
        yield (
            f"ENTRA_CLIENT_CERTIFICATE_PATH names a certificate that expired on {certificate.ends:%Y-%m-%d}; make one, "
            "and upload its public part under 'Certificates & secrets' of the API's app registration."
        )
    if certificate and certificate.begins > now:
        yield (
            f"ENTRA_CLIENT_CERTIFICATE_PATH names a certificate that is valid only from {certificate.begins:%Y-%m-%d}; "
            "wait, or check this machine's clock."
        )


def _resolve_faults(entra: EntraSettings, backend: StorageBackend | None) -> Iterable[str]:
    if entra.resolve_scope and backend is StorageBackend.GRAPH:
        yield (
            "ENTRA_RESOLVE_SCOPE works only with STORAGE_BACKEND=cosmos or sqlite: Microsoft Graph is read with each "
            "caller's own token, which shows nobody else's identity."
        )
    if entra.resolve_scope == entra.required_scope:
        yield "ENTRA_RESOLVE_SCOPE must be another scope than ENTRA_REQUIRED_SCOPE, which every caller has."


def _door_contradictions(groups: Mapping[str, Any]) -> Iterable[str]:
    oidc, entra, teams, storage, acs = (groups.get(name) for name in ("oidc", "entra", "teams", "storage", "acs"))
    if oidc is None:
        return
    if oidc.issuer is None:
        for field in sorted(oidc.model_fields_set - {"issuer"}):
            name = variable_name(OidcSettings, field)
            yield f"{name} is for another issuer than Microsoft Entra ID; set OIDC_ISSUER."
        return
    if not oidc.audience:
        yield "OIDC_ISSUER needs OIDC_AUDIENCE, the `aud` of access tokens for this API."
    if not oidc.required_scope and not oidc.required_role:
        yield "OIDC_ISSUER needs OIDC_REQUIRED_SCOPE or OIDC_REQUIRED_ROLE: an audience by itself permits no call."
    if storage and storage.backend is StorageBackend.GRAPH:
        yield (
            "STORAGE_BACKEND=graph works only with users of Microsoft Entra ID, because their own tokens reach "
            "Microsoft Graph; with OIDC_ISSUER use cosmos or sqlite."
        )
    if acs and (more := set(oidc.acs_token_scopes) - included_scopes(acs.token_scopes)):
        yield f"OIDC_ACS_TOKEN_SCOPES holds {', '.join(sorted(more))}, which ACS_TOKEN_SCOPES does not allow."
    if entra is None:
        return
    if entra.tenant_id and entra.client_id:
        yield from _not_another_issuer(oidc.issuer, entra)
        return
    # The managed identity is also the service's own for other Azure resources.
    excluded = sorted(entra.model_fields_set - {"managed_identity_client_id"})
    if excluded:
        names = ", ".join(variable_name(EntraSettings, field) for field in excluded)
        yield (
            f"With OIDC_ISSUER leave out {names}: only that issuer's users call. For a second door, for users of "
            "Microsoft Entra ID, set both ENTRA_TENANT_ID and ENTRA_CLIENT_ID."
        )
    if teams and teams.model_fields_set:
        yield "The TEAMS_ settings are for users of Microsoft Entra ID; leave them out when only OIDC_ISSUER is set."


def _not_another_issuer(issuer: str, entra: EntraSettings) -> Iterable[str]:
    """Nobody may be able to come in by either door: one user would become two."""
    hosts = (issuing_host(entra.authority_host), entra.authority_host)
    own = [f"{host}/{tenant}/v2.0" for host in hosts for tenant in entra.tenants]
    own += [f"https://sts.windows.net/{tenant}" for tenant in entra.tenants]
    if issuer.rstrip("/").lower() in own:
        yield (
            "OIDC_ISSUER is the issuer of a tenant of Microsoft Entra ID whose users call by the ENTRA_ settings; set "
            "another one, or leave the tenant out of ENTRA_ALLOWED_TENANTS."
        )


def _cloud_contradictions(groups: Mapping[str, Any]) -> Iterable[str]:
    entra, storage, graph = (groups.get(name) for name in ("entra", "storage", "graph"))
    if entra and graph and storage and storage.backend is StorageBackend.GRAPH:
        cloud = cloud_of(entra.authority_host)
        known = {host for each in CLOUDS for host in each.graph_hosts}
        if cloud and graph.base_url in known and graph.base_url not in cloud.graph_hosts:
            hosts = " or ".join(cloud.graph_hosts)
            yield f"GRAPH_BASE_URL is in another cloud than ENTRA_AUTHORITY_HOST, whose Microsoft Graph is {hosts}."


def _acs_faults(acs: AcsSettings) -> Iterable[str]:
    if (acs.connection_string is None) == (acs.endpoint is None):
        yield "Set exactly one of ACS_CONNECTION_STRING and ACS_ENDPOINT."
    if acs.token_reuse_minutes >= acs.token_lifetime_minutes:
        yield "ACS_TOKEN_REUSE_MINUTES must be less than ACS_TOKEN_LIFETIME_MINUTES."
