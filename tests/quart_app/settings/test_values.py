"""What each setting must look like, and which of them go together: what is accepted works, and what can't work is
refused in one sentence of ours."""

import os
import re
from pathlib import Path

import pytest
from azure.monitor.opentelemetry.exporter._connection_string_parser import ConnectionStringParser
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quart_app.acs.client import AcsOptions, SdkAcsClient
from quart_app.settings import GROUPS, AcsConnectionString, InvalidSettings, is_secret, load_settings
from quart_app.settings import variable_name as name_of
from tests.quart_app.settings.conftest import GOOD, TENANT, faults, loaded
from tests.support.certificates import write_certificate

ACS = "https://contoso.communication.azure.com"
KEY = "c2VjcmV0LWtleQ=="


@pytest.mark.parametrize(
    "value",
    [
        f"endpoint={ACS}/;accesskey={KEY}",
        f"endpoint={ACS}/; accesskey={KEY}",
        f" endpoint={ACS}/;accesskey={KEY}",
        f"endpoint={ACS}/;accesskey={KEY}\n",
        f"Endpoint = {ACS} ; AccessKey = {KEY} ;",
        f"accesskey={KEY};endpoint={ACS}/",
        f"ENDPOINT={ACS};ACCESSKEY={KEY}",
    ],
)
async def test_a_connection_string_is_used_as_it_was_parsed(environment: pytest.MonkeyPatch, value: str) -> None:
    environment.setenv("ACS_CONNECTION_STRING", value)
    connection = loaded().acs.connection_string
    assert connection == AcsConnectionString(ACS, KEY)
    assert KEY not in repr(connection)
    client = SdkAcsClient(AcsOptions(("chat",), connection_string=connection))
    await client.aclose()


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (f"Endpoint=https://contoso.service.signalr.net;AccessKey={KEY};Version=1.0;", "another service"),
        (f"Endpoint=https://contoso.service.signalr.net;AccessKey={KEY};", "something other than an ACS resource"),
        (f"Endpoint=https://contoso.webpubsub.azure.com;AccessKey={KEY}", "something other than an ACS resource"),
        (f"Endpoint=https://contoso.azconfig.io;Id=x;Secret={KEY}", "another service"),
        (f"Endpoint=sb://contoso.servicebus.windows.net/;SharedAccessKeyName=x;SharedAccessKey={KEY}", "another"),
        (f"AccountEndpoint=https://contoso.documents.azure.com:443/;AccountKey={KEY};", "another service"),
        (f"DefaultEndpointsProtocol=https;AccountName=x;AccountKey={KEY}", "another service"),
        (f"endpoint={ACS}/;accesskey={KEY};endpoint={ACS}/", "twice"),
        (f"endpoint={ACS}/identities;accesskey={KEY}", "without a path"),
        (f"endpoint=https://user@contoso.communication.azure.com;accesskey={KEY}", "must look like"),
        (f"endpoint=https://<name>.communication.azure.com;accesskey={KEY}", "must look like"),
        (f"endpoint={ACS}", "must look like"),
        (f"accesskey={KEY}", "must look like"),
        (ACS, "must look like"),
        (f"endpoint={ACS}/;accesskey=", "must look like"),
        (f"endpoint={ACS}/;accesskey={KEY[:-1]}", "must look like"),
        (f'"endpoint={ACS}/;accesskey={KEY}"', "quotation marks"),
        ("@Microsoft.KeyVault(SecretUri=https://x.vault.azure.net/secrets/acs/)", "unresolved reference"),
    ],
)
def test_a_connection_string_that_cannot_be_acss_is_refused(
    environment: pytest.MonkeyPatch, value: str, words: str
) -> None:
    environment.setenv("ACS_CONNECTION_STRING", value)
    (told,) = faults()
    assert words in told
    assert "c2VjcmV0" not in told


SECRETS = ("ENTRA_CLIENT_SECRET", "LOG_HASH_KEY", "COSMOS_KEY")


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    ("form", "words"),
    [
        ("{}\n", "ends with white space"),
        ("{}\r", "ends with white space"),
        ("{} ", "ends with white space"),
        ("\t{}", "begins with white space"),
        ("\u00a0{}", "begins with white space"),
        ('"{}"', "quotation marks"),
        ("'{}'", "quotation marks"),
        ("\u201c{}\u201d", "quotation marks"),
        ("@Microsoft.KeyVault(VaultName=v;SecretName={})", "unresolved reference"),
        ("@Microsoft.AppConfiguration(Endpoint=https://x; Key={})", "unresolved reference"),
        ("secretref:{}", "is a reference"),
    ],
)
def test_what_was_left_around_a_secret_is_told(
    environment: pytest.MonkeyPatch, name: str, form: str, words: str
) -> None:
    environment.setenv(name, form.format("c2VjcmV0"))
    (told,) = faults()
    assert told.startswith(f"{name} ")
    assert words in told
    assert "c2VjcmV0" not in told


def test_a_secrets_id_is_no_secret(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("ENTRA_CLIENT_SECRET", TENANT)
    assert faults() == [
        "ENTRA_CLIENT_SECRET: is the secret's id, a GUID; set the secret's value, which is shown only when it is made."
    ]


@pytest.mark.parametrize("value", ["a'b\"c", "'", "'a", "a b", "ab~.Q8_-"])
def test_a_secret_may_hold_anything_inside(environment: pytest.MonkeyPatch, value: str) -> None:
    environment.setenv("ENTRA_CLIENT_SECRET", value)
    secret = loaded().entra.client_secret
    assert secret is not None
    assert secret.get_secret_value() == value


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ENTRA_AUTHORITY_HOST", f"https://login.microsoftonline.com/{TENANT}", "goes into ENTRA_TENANT_ID"),
        ("ENTRA_AUTHORITY_HOST", f"https://login.microsoftonline.com/{TENANT}/v2.0", "goes into ENTRA_TENANT_ID"),
        ("ENTRA_AUTHORITY_HOST", "https://login.microsoftonline.com/common/", "goes into ENTRA_TENANT_ID"),
        ("ENTRA_AUTHORITY_HOST", "login.microsoftonline.com", "must be the https:// address"),
        ("ENTRA_AUTHORITY_HOST", "http://login.microsoftonline.com", "must be the https:// address"),
        ("GRAPH_BASE_URL", "https://graph.windows.net", "something other than Microsoft Graph"),
        ("GRAPH_BASE_URL", "https://graph.microsoft.com/beta", "without a path"),
        ("GRAPH_BASE_URL", "https://graph.microsoft.com/v1.0/me", "without a path"),
        ("COSMOS_ENDPOINT", "mongodb://contoso:key@contoso.mongo.cosmos.azure.com:10255/?ssl=true", "API for NoSQL"),
        ("COSMOS_ENDPOINT", "https://contoso.mongo.cosmos.azure.com", "API for NoSQL"),
        ("COSMOS_ENDPOINT", "https://contoso.gremlin.cosmos.azure.com:443/", "API for NoSQL"),
        ("COSMOS_ENDPOINT", "https://contoso.table.cosmos.azure.com", "API for NoSQL"),
        ("COSMOS_ENDPOINT", "https://contoso.communication.azure.com", "API for NoSQL"),
        ("COSMOS_ENDPOINT", "https://contoso.documents.azure.com/dbs/acs-auth", "without a path"),
        ("COSMOS_ENDPOINT", f"AccountEndpoint=https://contoso.documents.azure.com;AccountKey={KEY}", "without a path"),
        (
            "COSMOS_KEY",
            f"AccountEndpoint=https://contoso.documents.azure.com;AccountKey={KEY}",
            "account key in base64",
        ),
        ("COSMOS_ENDPOINT", "https://contoso.documents.azure.com:0", "without a path"),
        ("COSMOS_ENDPOINT", "https://contoso.documents.azure.com:port", "without a path"),
        ("COSMOS_ENDPOINT", "https://contoso.documents.azure.com:99999", "without a path"),
        ("COSMOS_ENDPOINT", "https://[contoso", "without a path"),
        ("COSMOS_ENDPOINT", " https://contoso.documents.azure.com", "begins with white space"),
        ("COSMOS_ENDPOINT", "'https://contoso.documents.azure.com'", "quotation marks"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example.com/", "exact origin"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example.com:x", "exact origin"),
        ("CORS_ALLOWED_ORIGINS", "https://app.example.com?x", "exact origin"),
        ("CORS_ALLOWED_ORIGINS", "https://u@app.example.com", "exact origin"),
        ("CORS_ALLOWED_ORIGINS", "https://*.example.com", "exact origin"),
        ("ENTRA_TENANT_ID", "organizations", "ENTRA_ALLOWED_TENANTS"),
        ("ENTRA_TENANT_ID", "contoso.onmicrosoft.com", "not its domain name"),
        ("ENTRA_ALLOWED_TENANTS", "common", "no word for all tenants"),
        ("ENTRA_ALLOWED_TENANTS", f"{TENANT}, *", "no word for all tenants"),
        ("ENTRA_REQUIRED_SCOPE", "api://x/access_as_user", "only the scope's name"),
        ("HOST", "[::]", "without brackets"),
        ("HOST", "*", "IP address or a host name"),
        ("HOST", "0.0.0.0:5000", "without brackets and port"),
        ("HOST", "http://0.0.0.0", "IP address or a host name"),
        ("HOST", "256.1.1.1", "IP address or a host name"),
        ("HOST", "x" * 70, "IP address or a host name"),
        ("HOST", "ho st", "IP address or a host name"),
        ("PORT", "70000", "PORT: must be a whole number of at least 1 up to 65535."),
        ("PORT", "5000.5", "PORT: must be a whole number of at least 1 up to 65535."),
        ("REQUEST_DEADLINE_SECONDS", "0", "REQUEST_DEADLINE_SECONDS: must be a number above 0 up to 120."),
        ("REQUEST_DEADLINE_SECONDS", "nan", "REQUEST_DEADLINE_SECONDS: must be a number above 0 up to 120."),
        ("ENVIRONMENT", "staging", "ENVIRONMENT: must be one of development, production."),
        ("COSMOS_CREATE_IF_MISSING", "perhaps", "COSMOS_CREATE_IF_MISSING: must be true or false."),
        ("GRAPH_EXTENSION_NAME", "com contoso", "letters, digits, dots and underscores"),
        ("COSMOS_DATABASE", "a/b", "a name without /"),
        ("COSMOS_PREFERRED_REGIONS", "WestEurope", "a region by Azure's short name, such as northeurope"),
        ("APPLICATIONINSIGHTS_CONNECTION_STRING", TENANT, "must look like InstrumentationKey="),
        (
            "APPLICATIONINSIGHTS_CONNECTION_STRING",
            f"InstrumentationKey={TENANT};InstrumentationKey={TENANT}",
            "look like",
        ),
        *(
            ("APPLICATIONINSIGHTS_CONNECTION_STRING", f"InstrumentationKey={TENANT};{name}={address}", "look like")
            for name in ("IngestionEndpoint", "LiveEndpoint")
            for address in ("http://x.example", "x.example", "https://", "https://x.example:99999")
        ),
    ],
)
def test_a_value_that_cannot_work_is_refused_in_one_sentence(
    environment: pytest.MonkeyPatch, name: str, value: str, words: str
) -> None:
    environment.setenv(name, value)
    (told,) = faults()
    assert told.startswith(name)
    assert words in told
    assert KEY not in told


SEALED = {"STORAGE_BACKEND": "graph", "GRAPH_SEAL_KEYS": "a2V5IGtleSBrZXkga2V5IGtleSBrZXkga2V5IGtleSE="}
OF_GRAPH = (
    "STORAGE_BACKEND=graph needs exactly one of ENTRA_CLIENT_SECRET, ENTRA_CLIENT_CERTIFICATE_PATH, "
    "ENTRA_MANAGED_IDENTITY_CLIENT_ID."
)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (SEALED, OF_GRAPH),
        ({**SEALED, "ENTRA_CLIENT_SECRET": "hush", "ENTRA_MANAGED_IDENTITY_CLIENT_ID": TENANT}, OF_GRAPH),
        (
            {"STORAGE_BACKEND": "cosmos", "COSMOS_KEY": KEY},
            "STORAGE_BACKEND=cosmos needs COSMOS_ENDPOINT, such as https://NAME.documents.azure.com.",
        ),
        (
            {"COSMOS_CREATE_IF_MISSING": "true"},
            "COSMOS_CREATE_IF_MISSING is only for ENVIRONMENT=development; elsewhere, deploy the container.",
        ),
    ],
)
def test_what_does_not_go_together_is_told_in_one_sentence(
    environment: pytest.MonkeyPatch, given: dict[str, str], sentence: str
) -> None:
    for name, value in given.items():
        environment.setenv(name, value)
    assert faults() == [sentence]


def test_a_secret_and_a_certificate_are_one_too_many(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    environment.setenv("ENTRA_CLIENT_SECRET", "hush")
    environment.setenv("ENTRA_CLIENT_CERTIFICATE_PATH", str(write_certificate(tmp_path / "client.pem")))
    assert faults() == ["Set only one of ENTRA_CLIENT_SECRET and ENTRA_CLIENT_CERTIFICATE_PATH."]


def test_what_follows_from_a_malformed_registration_is_not_told_too(environment: pytest.MonkeyPatch) -> None:
    for name, value in {"OIDC_ISSUER": "https://id.example.com", "OIDC_AUDIENCE": "api"}.items():
        environment.setenv(name, value)
    environment.setenv("OIDC_REQUIRED_SCOPE", "call")
    environment.setenv("ENTRA_TENANT_ID", "contoso.onmicrosoft.com")
    (told,) = faults()
    assert told.startswith("ENTRA_TENANT_ID: must be a GUID")


@pytest.mark.parametrize(
    "issuer",
    [
        "https://id.example.com/.well-known/openid-configuration",
        f"https://login.microsoftonline.com/{TENANT}/v2.0/.well-known/openid-configuration",
        "https://id.example.com/.well-known/oauth-authorization-server",
        "https://id.example.com/.well-known/jwks.json",
    ],
)
def test_the_address_of_a_document_is_no_issuer(environment: pytest.MonkeyPatch, issuer: str) -> None:
    for name in ("ENTRA_TENANT_ID", "ENTRA_CLIENT_ID"):
        environment.delenv(name)
    for name, value in {"OIDC_ISSUER": issuer, "OIDC_AUDIENCE": "api", "OIDC_REQUIRED_SCOPE": "call"}.items():
        environment.setenv(name, value)
    (told,) = faults()
    assert told.startswith("OIDC_ISSUER: is the address of a document; the issuer is the part before /.well-known/")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENTRA_AUTHORITY_HOST", "https://login.microsoftonline.us/"),
        ("GRAPH_BASE_URL", "https://graph.microsoft.com/v1.0/"),
        ("COSMOS_ENDPOINT", "https://contoso.documents.azure.cn:443/"),
        ("COSMOS_ENDPOINT", "https://contoso.sqlx.cosmos.azure.com"),
        ("COSMOS_ENDPOINT", "https://localhost:8081/"),
        ("COSMOS_ENDPOINT", "https://[::1]:8081"),
        ("HOST", "::"),
        ("HOST", "localhost"),
        ("HOST", "acs_auth-1.internal"),
        ("CORS_ALLOWED_ORIGINS", "https://a.example.com,\n  http://localhost:3000\n"),
        ("ENTRA_ALLOWED_TENANTS", f" {TENANT} "),
    ],
)
def test_what_works_is_accepted(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    loaded()


INSIGHTS = f"InstrumentationKey={TENANT};IngestionEndpoint=https://x.in.applicationinsights.azure.com/"


@pytest.mark.parametrize("form", [" {}", "{} ", "{};", "{}\n"])
def test_what_application_insights_sdk_stumbles_over_is_refused(environment: pytest.MonkeyPatch, form: str) -> None:
    for text in (INSIGHTS, INSIGHTS.replace(";", "; ")):
        environment.setenv("APPLICATIONINSIGHTS_CONNECTION_STRING", form.format(text))
        (told,) = faults()
        assert "white space" in told


def test_application_insights_sdk_reads_the_same_ingestion_endpoint(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("APPLICATIONINSIGHTS_CONNECTION_STRING", INSIGHTS)
    connection = loaded().telemetry.applicationinsights_connection_string
    assert connection is not None
    parsed = ConnectionStringParser(connection.get_secret_value())
    assert parsed.endpoint == "https://x.in.applicationinsights.azure.com/"


FIELDS = [(group, field) for group in GROUPS.values() for field in group.model_fields]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.sampled_from(FIELDS), st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
@example(FIELDS[0], "x")
def test_whatever_is_set_is_told_in_our_own_words(
    monkeypatch: pytest.MonkeyPatch, which: tuple[type, str], text: str
) -> None:
    group, field = which
    with monkeypatch.context() as patch:
        for name, value in GOOD.items():
            patch.setenv(name, value)
        patch.setenv(name_of(group, field), text)
        try:
            load_settings(None)
        except InvalidSettings as error:
            told = "\n".join(error.faults)
            for words in ("Input should", "String should", "Value error", "Assertion", "validation", "URL scheme"):
                assert words not in told.replace(text, "")
            if is_secret(group, field) and len(text) > 12:
                assert text not in told


BAD = (
    *("-1", "nan", "1e999", "9" * 30, "null", "[1, 2]", "{}", "https://", "https://[", "ftp://x", "//", "..", "*", ","),
    *("2026-02-30", "9999-12-31", "a\tb", "a\nb", "\N{GRINNING FACE}", "=", "a=b;", "<name>", "x" * 5000, TENANT),
)
OF_PYDANTIC = re.compile(r"pydantic|(Input|String|Value) (should|error)|[Vv]alidation|Assertion|type=")


def test_every_bad_value_of_every_setting_is_told_in_one_sentence_of_ours(environment: pytest.MonkeyPatch) -> None:
    for name in os.environ.keys() - GOOD.keys():
        environment.delenv(name)  # each would be looked at a thousand times
    refused = set()
    for group, field in FIELDS:
        for value in BAD:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv(name_of(group, field), value)
                try:
                    load_settings(None)
                except InvalidSettings as error:
                    refused.add(name_of(group, field))
                    for told in error.faults:
                        assert not OF_PYDANTIC.search(told), told
                        assert re.fullmatch(r"[A-Z].*\.", told), told  # one sentence, on one line
    assert {name_of(group, field) for group, field in FIELDS} - refused == {
        *("SQLITE_PATH", "LOG_HASH_KEY", "TEAMS_AUDIENCES", "ENTRA_AUDIENCES", "DOCS_SCOPES"),  # any text
    }
