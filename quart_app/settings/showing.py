"""What is in effect, for people: without secrets, with derived values spelled out, and without what doesn't count."""

from collections.abc import Iterable
from dataclasses import dataclass

from pydantic import SecretStr

from quart_app.settings.certificates import ClientCertificate
from quart_app.settings.connection_strings import AcsConnectionString
from quart_app.settings.groups import (
    GROUPS,
    DoorName,
    Settings,
    StorageBackend,
    variable_name,
)

DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """A setting's variable, its value in effect (a secret only as set), and where that comes from."""

    name: str
    value: str
    source: str


def shown_settings(settings: Settings) -> Iterable[ShownSetting]:
    """Every setting that counts, in the order of their concerns.

    What is set but counts only for `acs-auth migrate` and its like (another store's settings) says so.
    """
    derived = _derived(settings)
    for concern, group in GROUPS.items():
        values = getattr(settings, concern)
        for field in group.model_fields:
            name = variable_name(group, field)
            value = derived.get(name, getattr(values, field))
            source = settings.sources.get(name)
            unused = concern in _UNUSED_STORES[settings.storage.backend]
            if source is None and (value is None or unused or not _counts(settings, concern, field)):
                continue
            yield ShownSetting(name, _shown(value), _source(source, unused=unused))


def callers(settings: Settings) -> str:
    """Whose access tokens are taken, in one sentence; by each door."""
    say = {DoorName.ENTRA: _callers_from_entra, DoorName.OIDC: _callers_from_oidc}
    return "; and ".join(say[door](settings) for door in settings.doors)


def _callers_from_entra(settings: Settings) -> str:
    entra = settings.entra
    tenants = "tenant" if len(entra.tenants) == 1 else "tenants"
    return (
        f"users of Microsoft Entra ID, {tenants} {_or(entra.tenants)}, with an access token for "
        f"{_or(entra.accepted_audiences)} and the scope {entra.required_scope}"
    )


def _callers_from_oidc(settings: Settings) -> str:
    oidc = settings.oidc
    needs = [f"the scope {oidc.required_scope}"] if oidc.required_scope else []
    needs += [f"the role {oidc.required_role} in the claim {oidc.roles_claim}"] if oidc.required_role else []
    return (
        f"users of {oidc.issuer}, known by the claim {oidc.subject_claim}, with an access token for "
        f"{_or(oidc.audience)} and {' and '.join(needs)}"
    )


def _derived(settings: Settings) -> dict[str, object]:
    """What is in effect where a setting's default depends on others."""
    entra, oidc, docs = settings.entra, settings.oidc, settings.docs
    first_scope = entra.full_scope if DoorName.ENTRA in settings.doors else oidc.required_scope or "openid"
    return {
        "ENTRA_ALLOWED_TENANTS": entra.tenants,
        "ENTRA_AUDIENCES": entra.accepted_audiences,
        "OIDC_DISCOVERY_URL": oidc.discovery_address,
        "OIDC_ACS_TOKEN_SCOPES": settings.token_scopes(DoorName.OIDC),
        "DOCS_SCOPES": docs.scopes or (first_scope,),
    }


def _counts(settings: Settings, concern: str, field: str) -> bool:
    """Whether a default matters to anyone."""
    by_entra, by_oidc = (door in settings.doors for door in DoorName)
    match concern:
        case "entra":
            return by_entra
        case "teams":
            return by_entra and (field != "audiences" or bool(settings.teams.client_ids))
        case "oidc":
            return by_oidc and (field != "roles_claim" or settings.oidc.required_role is not None)
        case "docs":
            return settings.docs.client_id is not None
        case _:
            return True


def _source(source: str | None, *, unused: bool) -> str:
    if source is None:
        return DEFAULT
    return f"{source}; used only by commands that name this store" if unused else source


def _shown(value: object) -> str:
    match value:
        case SecretStr() | AcsConnectionString():
            return "(set, not shown)"
        case ClientCertificate(path=path, ends=ends):
            return f"{path} (until {ends:%Y-%m-%d})"
        case tuple():
            return ",".join(value)
        case bool():
            return str(value).lower()
        case _:
            return str(value)


def _or(words: tuple[str, ...]) -> str:
    return " or ".join(words)


_UNUSED_STORES = {
    backend: {other.value for other in StorageBackend if other is not backend} for backend in StorageBackend
}
