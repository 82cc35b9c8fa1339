"""What `acs-auth check-config` shows: what is in effect, where it comes from, and nothing else."""

from pathlib import Path

import pytest

from quart_app.settings import Settings, callers, load_settings, shown_settings, variable_names
from tests.quart_app.settings.conftest import CLIENT, GOOD, TENANT
from tests.support.certificates import write_certificate

OTHER_TENANT = "22223333-cccc-4444-dddd-5555eeee6666"
OTHER_ISSUER = {
    "OIDC_ISSUER": "https://id.example.com/",
    "OIDC_AUDIENCE": "api",
    "OIDC_REQUIRED_SCOPE": "call",
    "ACS_CONNECTION_STRING": GOOD["ACS_CONNECTION_STRING"],
    "STORAGE_BACKEND": "sqlite",
}


def loaded(monkeypatch: pytest.MonkeyPatch, given: dict[str, str], env_file: Path | None = None) -> Settings:
    for name in GOOD:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    return load_settings(env_file)


def shown(settings: Settings) -> dict[str, str]:
    return {each.name: each.value for each in shown_settings(settings)}


def test_derived_defaults_are_spelled_out(monkeypatch: pytest.MonkeyPatch) -> None:
    values = shown(loaded(monkeypatch, {**GOOD, "DOCS_CLIENT_ID": "docs"}))
    assert values["ENTRA_ALLOWED_TENANTS"] == TENANT
    assert values["ENTRA_AUDIENCES"] == f"{CLIENT},api://{CLIENT}"
    assert values["DOCS_SCOPES"] == f"api://{CLIENT}/access_as_user"


def test_lines_that_do_not_count_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    by_entra = shown(loaded(monkeypatch, GOOD))
    assert not [name for name in by_entra if name.startswith(("OIDC_", "COSMOS_", "GRAPH_"))]
    assert "TEAMS_AUDIENCES" not in by_entra
    assert "ENTRA_CLIENT_SECRET" not in by_entra
    assert "DOCS_SCOPES" not in by_entra
    assert by_entra["SQLITE_PATH"] == "mappings.sqlite"
    for name in ("ENTRA_TENANT_ID", "ENTRA_CLIENT_ID"):
        monkeypatch.delenv(name)
    by_another = shown(loaded(monkeypatch, OTHER_ISSUER))
    assert not [name for name in by_another if name.startswith(("ENTRA_", "TEAMS_"))]
    assert by_another["OIDC_DISCOVERY_URL"] == "https://id.example.com/.well-known/openid-configuration"
    assert "OIDC_ROLES_CLAIM" not in by_another


def test_what_is_set_is_never_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    further = {
        "COSMOS_ENDPOINT": "https://contoso.documents.azure.com",
        "TEAMS_AUDIENCES": "x",
        "ENTRA_CLIENT_CERTIFICATE_PATH": str(write_certificate(tmp_path / "client.pem")),
    }
    settings = loaded(monkeypatch, {**GOOD, **further})
    lines = {each.name: each for each in shown_settings(settings)}
    assert further.keys() <= lines.keys()
    assert lines["COSMOS_ENDPOINT"].source == "environment; used only by commands that name this store"
    assert "COSMOS_DATABASE" not in lines


def test_each_value_says_where_it_comes_from(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("\nPORT=6001\nCommunicationServices__Scopes__0=chat\n")
    settings = loaded(monkeypatch, {**GOOD, "microsoftEntraID_clientSecret": "hush"}, file)
    sources = {each.name: each.source for each in shown_settings(settings)}
    assert sources["PORT"] == f"{file}, line 2"
    assert sources["ACS_TOKEN_SCOPES"] == f"{file}, line 3, as CommunicationServices__Scopes"
    assert sources["ENTRA_TENANT_ID"] == "environment"
    assert sources["ENTRA_CLIENT_SECRET"] == "environment, as microsoftEntraID_clientSecret"
    assert sources["HOST"] == sources["ENTRA_AUDIENCES"] == "default"


def test_no_secret_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = {"ENTRA_CLIENT_SECRET": "hush~hush", "COSMOS_KEY": "aHVzaGh1c2g=", "LOG_HASH_KEY": "hush hush"}
    settings = loaded(monkeypatch, {**GOOD, **secrets})
    values = shown(settings)
    for name in ("ACS_CONNECTION_STRING", *secrets):
        assert values[name] == "(set, not shown)"
    for secret in ("c2VjcmV0", "hush", "aHVzaGh1c2g"):
        assert secret not in "".join(values.values()) + repr(settings)
    assert values.keys() <= set(variable_names())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            GOOD,
            f"users of Microsoft Entra ID, tenant {TENANT}, with an access token for {CLIENT} or api://{CLIENT} and "
            "the scope access_as_user",
        ),
        (
            {**GOOD, "ENTRA_ALLOWED_TENANTS": f"{TENANT} {OTHER_TENANT}", "ENTRA_AUDIENCES": "api://x"},
            f"users of Microsoft Entra ID, tenants {TENANT} or {OTHER_TENANT}, with an access token for api://x and "
            "the scope access_as_user",
        ),
        (
            OTHER_ISSUER,
            "users of https://id.example.com/, known by the claim sub, with an access token for api and the scope call",
        ),
        (
            {**OTHER_ISSUER, "OIDC_REQUIRED_ROLE": "acs", "OIDC_SUBJECT_CLAIM": "oid"},
            "users of https://id.example.com/, known by the claim oid, with an access token for api and the scope call "
            "and the role acs in the claim roles",
        ),
    ],
)
def test_callers_are_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], sentence: str
) -> None:
    assert callers(loaded(monkeypatch, given)) == sentence
