"""Settings from the environment."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quart_app.settings import (
    AcsConnectionString,
    InvalidSettings,
    load_settings,
    shown_settings,
    variable_names,
)
from tests.quart_app.settings.conftest import CLIENT, GOOD, TENANT, faults, loaded


def test_a_minimal_environment_is_enough(environment: pytest.MonkeyPatch) -> None:
    settings = loaded()
    assert settings.server.port == 5000
    assert settings.entra.tenants == (TENANT,)
    assert settings.entra.accepted_audiences == (CLIENT, f"api://{CLIENT}")
    assert settings.entra.full_scope == f"api://{CLIENT}/access_as_user"
    assert settings.acs.token_scopes == ("chat", "voip")
    assert settings.acs.token_lifetime_minutes == 1440


@pytest.mark.parametrize(("backend", "works"), [("sqlite", True), ("cosmos", True), ("graph", False)])
def test_colleagues_are_found_only_where_the_service_reads_for_itself(
    environment: pytest.MonkeyPatch, backend: str, works: bool
) -> None:
    environment.setenv("STORAGE_BACKEND", backend)
    environment.setenv("COSMOS_ENDPOINT", "https://contoso.documents.azure.com")
    environment.setenv("COSMOS_KEY", "c2VjcmV0LWtleQ==")
    environment.setenv("GRAPH_SEAL_KEYS", "a2V5IGtleSBrZXkga2V5IGtleSBrZXkga2V5IGtleSE=")
    environment.setenv("ENTRA_CLIENT_SECRET", "secret")
    loaded()
    environment.setenv("ENTRA_RESOLVE_SCOPE", "resolve_colleagues")
    if works:
        assert loaded().entra.resolve_scope == "resolve_colleagues"
    else:
        (fault,) = faults()
        assert fault.startswith("ENTRA_RESOLVE_SCOPE works only with STORAGE_BACKEND=cosmos or sqlite")


def test_every_fault_is_reported_at_once(environment: pytest.MonkeyPatch) -> None:
    environment.delenv("ENTRA_TENANT_ID")
    environment.setenv("ENTRA_CLIENT_ID", "not-a-guid")
    environment.setenv("ACS_CONNECTION_STRING", "endpoint=http://plain.example;accesskey=c2VjcmV0LWtleQ==")
    environment.setenv("ACS_TOKEN_SCOPES", "chat fly")
    environment.setenv("ACS_TOKEN_LIFETIME_MINUTES", "59")
    environment.setenv("STORAGE_BACKEND", "papyrus")
    environment.setenv("CORS_ALLOWED_ORIGINS", "*")
    environment.setenv("ENTRA_TENNANT_ID", TENANT)
    told = faults()
    for name in (
        "ENTRA_CLIENT_ID: must be a GUID",
        "ACS_CONNECTION_STRING: must look like",
        "ACS_TOKEN_SCOPES: must name",
        "ACS_TOKEN_LIFETIME_MINUTES",
        "STORAGE_BACKEND",
        "CORS_ALLOWED_ORIGINS",
        "ENTRA_TENNANT_ID is not a setting; did you mean ENTRA_TENANT_ID?",
    ):
        assert any(fault.startswith(name) for fault in told), name
    assert len(told) == 7


@pytest.mark.parametrize("minutes", ["59", "1441", "an hour"])
def test_a_token_lifetime_outside_one_to_twenty_four_hours_is_refused(
    environment: pytest.MonkeyPatch, minutes: str
) -> None:
    environment.setenv("ACS_TOKEN_LIFETIME_MINUTES", minutes)
    assert any("ACS_TOKEN_LIFETIME_MINUTES" in fault for fault in faults())


@pytest.mark.parametrize(
    "value",
    [
        "endpoint=http://contoso.communication.azure.com/;accesskey=c2VjcmV0LWtleQ==",
        "endpoint=https://contoso.communication.azure.com/;accesskey=TOP-SECRET!",
        "endpoint=https://contoso.communication.azure.com/",
        "TOP-SECRET",
    ],
)
def test_no_fault_tells_a_secret(environment: pytest.MonkeyPatch, value: str) -> None:
    environment.setenv("ACS_CONNECTION_STRING", value)
    told = "\n".join(faults())
    assert "ACS_CONNECTION_STRING" in told
    assert "SECRET" not in told
    assert "c2VjcmV0" not in told


def test_the_names_of_the_samples_are_accepted(environment: pytest.MonkeyPatch) -> None:
    for old, new in {
        "azureActiveDirectory_tenantId": "ENTRA_TENANT_ID",
        "azureActiveDirectory_clientId": "ENTRA_CLIENT_ID",
        "azureActiveDirectory_clientSecret": "ENTRA_CLIENT_SECRET",
        "communicationServices_connectionString": "ACS_CONNECTION_STRING",
    }.items():
        environment.setenv(old, GOOD.get(new, "a-secret"))
        environment.delenv(new, raising=False)
    settings = loaded()
    assert settings.entra.tenant_id == TENANT
    assert settings.entra.client_secret is not None
    assert settings.entra.client_secret.get_secret_value() == "a-secret"
    assert settings.acs.connection_string == AcsConnectionString.parse(GOOD["ACS_CONNECTION_STRING"])


def test_the_environment_wins_over_the_file(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.write_text("PORT=6001\nHOST=127.0.0.1\nSQLITE_PATHH=x\n")
    environment.setenv("PORT", "6002")
    with pytest.raises(InvalidSettings, match="SQLITE_PATHH is not a setting; did you mean SQLITE_PATH"):
        load_settings(file)
    file.write_text("PORT=6001\nHOST=127.0.0.1\n")
    settings = load_settings(file)
    assert (settings.server.port, settings.server.host) == (6002, "127.0.0.1")


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ_", min_size=1, max_size=12))
def test_any_unknown_variable_with_one_of_our_prefixes_is_a_fault(suffix: str) -> None:
    name = f"ENTRA_{suffix}"
    with pytest.MonkeyPatch.context() as patch:
        for key, value in GOOD.items():
            patch.setenv(key, value)
        if name in variable_names():
            return
        patch.setenv(name, "x")
        assert any(fault.startswith(f"{name} is not a setting; did you mean ENTRA_") for fault in faults())


def undocumented(text: str) -> list[str]:
    """The settings without a row that tells default, meaning, and where to find the value."""
    rows = re.findall(r"^\| `([A-Z_]+)`[^|]*\|[^|]*\| [^|]+ \| [^|]+ \|$", text, re.MULTILINE)
    return sorted(set(variable_names()) - set(rows))


def test_every_setting_is_documented_with_where_to_find_it() -> None:
    text = (Path(__file__).parents[3] / "docs" / "settings.md").read_text()
    assert undocumented(text) == []
    assert undocumented(re.sub(r"^(\| `PORT` .*?)\| [^|]* \|$", r"\1|", text, flags=re.MULTILINE)) == ["PORT"]


KEY, OTHER_KEY = "a2V5IGtleSBrZXkga2V5IGtleSBrZXkga2V5IGtleSE=", "bmV3IGtleSwgbmV3IGtleSwgbmV3IGtleSwgbmV3IGtleQ=="


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (KEY[:-8], "at least 32 bytes"),
        ("not base64!", "must be base64"),
        (f"{KEY};{OTHER_KEY}", "must be base64"),
        (f"{KEY},", "at least 32 bytes"),
        (f"{KEY},{KEY}", "the same"),
    ],
)
def test_a_key_that_can_seal_nothing_is_refused_and_not_shown(
    environment: pytest.MonkeyPatch, value: str, fault: str
) -> None:
    environment.setenv("GRAPH_SEAL_KEYS", value)
    (told,) = faults()
    assert told.startswith("GRAPH_SEAL_KEYS: ")
    assert fault in told
    assert value not in told


def test_graph_needs_a_key_and_shows_none(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("STORAGE_BACKEND", "graph")
    environment.setenv("ENTRA_CLIENT_SECRET", "secret")
    assert [fault for fault in faults() if "GRAPH_SEAL_KEYS" in fault and "openssl rand -base64 32" in fault]
    environment.setenv("GRAPH_SEAL_KEYS", f"{KEY}, {OTHER_KEY}")
    shown = {each.name: each.value for each in shown_settings(loaded())}
    assert shown["GRAPH_SEAL_KEYS"] == "(set, not shown)"


@pytest.mark.parametrize("value", ["tomorrow", "1764072000", "2026-13-01", "31.12.2026", "9999-12-31"])
def test_a_day_that_is_none_or_too_far_is_refused(environment: pytest.MonkeyPatch, value: str) -> None:
    environment.setenv("GRAPH_ACCEPT_UNSEALED_UNTIL", value)
    (told,) = faults()
    assert told.startswith("GRAPH_ACCEPT_UNSEALED_UNTIL: must be")


def test_a_day_at_most_ninety_days_ahead_is_taken(environment: pytest.MonkeyPatch) -> None:
    last = datetime.now(UTC).date() + timedelta(days=90)
    environment.setenv("GRAPH_ACCEPT_UNSEALED_UNTIL", last.isoformat())
    assert loaded().graph.accept_unsealed_until == last
    environment.setenv("GRAPH_ACCEPT_UNSEALED_UNTIL", (last + timedelta(days=2)).isoformat())
    assert "at most 90 days ahead" in faults()[0]
