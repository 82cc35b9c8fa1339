"""What the environment and `.env` set: nothing is dropped in silence, and what belongs to others is left alone."""

import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quart_app.settings import Settings, load_settings
from quart_app.settings.variables import read_variables
from tests.quart_app.settings.conftest import CLIENT, GOOD, TENANT, faults


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def loaded(file: Path, content: str) -> Settings:
    file.write_text(content)
    return load_settings(file)


@pytest.mark.parametrize(
    "line",
    [
        "ACS_TOKEN_SCOPES: chat",
        "ACS_TOKEN_SCOPES",
        "export ACS_TOKEN_SCOPES",
        "- ACS_TOKEN_SCOPES=chat",
        'ACS_TOKEN_SCOPES="chat',
        'ACS_TOKEN_SCOPES="chat" voip',
        "set ACS_TOKEN_SCOPES=chat",
        "$env:ACS_TOKEN_SCOPES = 'chat'",
        "=chat",
        "{",
    ],
)
def test_a_line_that_cannot_be_understood_is_told_with_file_and_line(
    environment: pytest.MonkeyPatch, file: Path, line: str
) -> None:
    file.write_text(f"# first\n\nPORT=6001\n\n{line}\n")
    told = faults(file)
    assert len(told) == 1
    assert str(file) in told[0]
    assert "line 5" in told[0]
    assert "chat" not in told[0]


def test_every_such_line_is_told(environment: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("a b\nPORT=6001\r\nc d\r\n")
    assert [fault.partition(",")[2].partition(",")[0] for fault in faults(file)] == [" line 1", " line 3"]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a directory", "Is a directory"),
        ("Latin-1", "not UTF-8"),
        ("UTF-16 of PowerShell", "not UTF-8"),
        ("UTF-16 without a mark", "not UTF-8"),
        ("a dangling link", "link to a file that does not exist"),
        ("a link to itself", "can't be read"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_in_one_sentence(
    environment: pytest.MonkeyPatch, file: Path, kind: str, words: str
) -> None:
    match kind:
        case "a directory":
            file.mkdir()
        case "Latin-1":
            file.write_bytes("ENTRA_REQUIRED_SCOPE=zugänglich".encode("latin-1"))
        case "UTF-16 of PowerShell":
            file.write_bytes("PORT=6001".encode("utf-16"))
        case "UTF-16 without a mark":
            file.write_bytes("PORT=6001".encode("utf-16-le"))
        case "a dangling link":
            file.symlink_to(file.parent / "missing")
        case _:
            file.symlink_to(file)
    (told,) = faults(file)
    assert str(file) in told
    assert words in told


def test_a_file_is_not_needed(environment: pytest.MonkeyPatch, file: Path) -> None:
    assert load_settings(file).server.port == 5000


def test_a_byte_order_mark_is_no_part_of_the_first_name(environment: pytest.MonkeyPatch, file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbfPORT=6001\r\n")
    assert load_settings(file).server.port == 6001


def test_a_pipe_is_read_once(environment: pytest.MonkeyPatch, file: Path) -> None:
    """Password managers give `.env` as a pipe, which can be read only once."""
    os.mkfifo(file)
    if os.fork() == 0:
        try:
            file.write_text("PORT=6001\n")
        finally:
            os._exit(0)
    settings = load_settings(file)
    os.wait()
    assert settings.server.port == 6001


@pytest.mark.parametrize("name", GOOD)
def test_an_empty_variable_leaves_the_files_value(environment: pytest.MonkeyPatch, file: Path, name: str) -> None:
    environment.setenv(name, "")
    sources = loaded(file, f"{name}={GOOD[name]}\n").sources
    assert sources[name] == f"{file}, line 1"


def test_an_empty_variable_by_another_name_leaves_ours(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("azureActiveDirectory_clientId", "")
    assert load_settings(None).entra.client_id == CLIENT


def test_an_empty_line_of_the_file_is_not_set(environment: pytest.MonkeyPatch, file: Path) -> None:
    assert loaded(file, "PORT=\nHOST= # every address\nENTRA_CLIENT_SECRET=''\n").server.port == 5000


def test_a_variable_that_is_set_twice_in_the_file_is_told(environment: pytest.MonkeyPatch, file: Path) -> None:
    file.write_text("PORT=6001\nFOREIGN=1\nFOREIGN=2\nport=6002\n")
    assert faults(file) == [f"port is set twice, the second time to another value ({file}, line 4); keep only one."]
    assert loaded(file, "PORT=6001\nPORT=6001\nPORT=\n").server.port == 6001


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENTRA_CLIENT_SECRET", "ab${cd}ef~"),
        ("ENTRA_CLIENT_SECRET", "ab$cd"),
        ("ENTRA_CLIENT_SECRET", "${"),
        ("LOG_HASH_KEY", "$(x)${y}"),
    ],
)
def test_a_secret_is_taken_as_it_is_written(environment: pytest.MonkeyPatch, file: Path, name: str, value: str) -> None:
    environment.setenv("cd", "replaced")
    for line in (f"{name}={value}", f"{name}='{value}'", f'{name}="{value}"'):
        settings = loaded(file, line)
        secret = settings.entra.client_secret if name == "ENTRA_CLIENT_SECRET" else settings.telemetry.log_hash_key
        assert secret is not None
        assert secret.get_secret_value() == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENTRA_CLIENT_SECRET", "${SECRET}"),
        ("ENTRA_CLIENT_SECRET", "${SECRET:-}"),
        ("ENTRA_CLIENT_SECRET", "$(SECRET)"),
        ("ENTRA_CLIENT_SECRET", "%SECRET%"),
        ("SQLITE_PATH", "${HOME}/mappings.sqlite"),
        ("ACS_CONNECTION_STRING", "${ACS}"),
    ],
)
def test_a_variable_that_nothing_replaced_is_told(
    environment: pytest.MonkeyPatch, file: Path, name: str, value: str
) -> None:
    environment.delenv(name, raising=False)
    file.write_text(f"{name}={value}\n")
    assert faults(file) == [f"{name} holds a variable that nothing has replaced; write its value."]


KUBERNETES = {
    "GRAPH_SERVICE_HOST": "10.0.0.7",
    "GRAPH_SERVICE_PORT": "80",
    "GRAPH_SERVICE_PORT_HTTP": "80",
    "GRAPH_PORT": "tcp://10.0.0.7:80",
    "GRAPH_PORT_80_TCP": "tcp://10.0.0.7:80",
    "GRAPH_PORT_80_TCP_PROTO": "tcp",
    "GRAPH_PORT_80_TCP_PORT": "80",
    "GRAPH_PORT_80_TCP_ADDR": "10.0.0.7",
    "ACS_AUTH_SERVICE_HOST": "10.0.0.8",
    "ACS_AUTH_PORT": "tcp://10.0.0.8:80",
    "DOCS_PORT": "udp://10.0.0.9:53",
    "STORAGE_PORT_53_UDP_ADDR": "10.0.0.9",
    "COSMOS_V6_PORT": "tcp://[fd00::7]:80",
}


def test_what_kubernetes_sets_for_its_services_is_not_ours(environment: pytest.MonkeyPatch) -> None:
    for name, value in KUBERNETES.items():
        environment.setenv(name, value)
    assert load_settings(None).server.port == 5000


@pytest.mark.parametrize(("name", "value"), [("GRAPH_PORT", "80"), ("ACS_HOST", "x"), ("GRAPH_SERVICE", "x")])
def test_what_only_resembles_that_is_told(environment: pytest.MonkeyPatch, name: str, value: str) -> None:
    environment.setenv(name, value)
    assert faults()[0].startswith(f"{name} is not a setting")


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("ENTRA_TENNANT_ID", "ENTRA_TENANT_ID"),
        ("ENTRA_CLIENTID", "ENTRA_CLIENT_ID"),
        ("STORAGE_BACKENDS", "STORAGE_BACKEND"),
        ("ACS_CONECTION_STRING", "ACS_CONNECTION_STRING"),
        ("ENTAR_TENANT_ID", "ENTRA_TENANT_ID"),
    ],
)
def test_a_misspelt_variable_is_told_once(environment: pytest.MonkeyPatch, misspelt: str, meant: str) -> None:
    environment.setenv(misspelt, GOOD[meant])
    environment.delenv(meant)
    assert faults() == [f"{misspelt} is not a setting; did you mean {meant}?"]


def test_a_misspelt_issuer_is_told_once(environment: pytest.MonkeyPatch) -> None:
    for name in ("ENTRA_TENANT_ID", "ENTRA_CLIENT_ID"):
        environment.delenv(name)
    environment.setenv("OIDC_ISUER", "https://id.example.com")
    environment.setenv("OIDC_AUDIENCE", "api")
    environment.setenv("OIDC_REQUIRED_SCOPE", "call")
    assert faults() == ["OIDC_ISUER is not a setting; did you mean OIDC_ISSUER?"]


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("RATE_LIMIT_REQUEST_PER_MINUTE", "RATE_LIMIT_REQUESTS_PER_MINUTE"),
        ("APPLICATIONINSIGHTS_CONNECTIONSTRING", "APPLICATIONINSIGHTS_CONNECTION_STRING"),
        ("TRUSTED_PROXY_HOP", "TRUSTED_PROXY_HOPS"),
    ],
)
def test_a_misspelt_name_without_a_prefix_is_told_too(
    environment: pytest.MonkeyPatch, misspelt: str, meant: str
) -> None:
    environment.setenv(misspelt, "1")
    assert faults() == [f"{misspelt} is not a setting; did you mean {meant}?"]


@pytest.mark.parametrize("name", ["AZURE_TENANT_ID", "AZURE_CLIENT_ID", "IMPORT", "GHOST", "OTEL_SERVICE_NAME"])
def test_what_belongs_to_other_programs_is_left_alone(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv(name, "x")
    assert load_settings(None).entra.tenant_id == TENANT


@pytest.mark.parametrize("form", ["CommunicationServices__Scopes__{}", "CommunicationServices:Scopes:{}"])
def test_the_csharp_samples_scopes_are_understood(environment: pytest.MonkeyPatch, form: str) -> None:
    environment.setenv(form.format(0), "chat")
    settings = load_settings(None)
    assert settings.acs.token_scopes == ("chat",)
    assert settings.sources["ACS_TOKEN_SCOPES"].startswith("environment, as CommunicationServices")
    environment.setenv(form.format(1), "voip.join")
    assert load_settings(None).acs.token_scopes == ("chat", "voip.join")
    environment.setenv("ACS_TOKEN_SCOPES", "voip")
    assert load_settings(None).acs.token_scopes == ("voip",)


def test_a_list_that_is_also_given_whole_is_told_and_not_joined(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CommunicationServices__Scopes", "chat")
    environment.setenv("CommunicationServices__Scopes__0", "voip")
    (told,) = faults()
    assert told.startswith("CommunicationServices__Scopes__0 ")
    assert told.endswith("means nothing here; leave it out.")


def test_a_wrong_scope_of_the_csharp_sample_is_told_by_our_name(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("CommunicationServices__Scopes__0", "fly")
    assert faults() == [
        "ACS_TOKEN_SCOPES: must name one or more of chat, voip, chat.join, chat.join.limited, voip.join."
    ]


@pytest.mark.parametrize(
    "name",
    [
        "CommunicationServices__Scope",
        "communicationServices_scopes",
        "AzureActiveDirectory__Scopes",
        "AzureActiveDirectory__Audience",
        "microsoftEntraID_tenant",
        "Graph__Timeout",
    ],
)
def test_what_the_samples_do_not_know_either_is_refused(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv(name, "x")
    (told,) = faults()
    assert told == f"{name} looks like a setting of Microsoft's samples, and means nothing here; leave it out."


@pytest.mark.parametrize("name", ["Graph__Scopes", "Graph__Scopes__0", "Graph:Scopes:0"])
def test_the_samples_scopes_for_graph_get_the_right_advice(environment: pytest.MonkeyPatch, name: str) -> None:
    environment.setenv(name, "user.read")
    (told,) = faults()
    assert told.startswith(f"{name.removesuffix('0').rstrip('_:')} means nothing here; leave it out")


@given(st.text(max_size=60))
def test_no_file_makes_more_than_sentences(tmp_path_factory: pytest.TempPathFactory, content: str) -> None:
    file = tmp_path_factory.mktemp("settings") / ".env"
    file.write_bytes(content.encode("utf-8", "surrogatepass"))
    variables = read_variables({}, file)
    lines = len(io.StringIO(content, newline=None).readlines())
    for fault in variables.faults:
        assert str(file) in fault
        if "line" in fault.removeprefix(str(file)):
            assert 1 <= int(fault.removeprefix(f"{file}, line ").partition(",")[0]) <= lines
