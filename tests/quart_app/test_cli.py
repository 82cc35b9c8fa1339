"""`acs-auth serve` and `acs-auth check-config` as an operator meets them: real processes, real sockets."""

import asyncio
import errno
import json
import os
import signal
import socket
from pathlib import Path

import aiohttp
import pytest

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.serving.server import _why_not_bound
from quart_app.settings import ServerSettings
from tests.support.certificates import certified, encoded, rsa_key
from tests.support.service_process import acs_auth, environment_for, finished, not_accepting, serving, stopped


@pytest.fixture
def environment(local_azure: LocalAzure, tmp_path: Path) -> dict[str, str]:
    return environment_for(local_azure, tmp_path)


async def test_bad_settings_are_all_listed_before_a_port_opens(environment: dict[str, str]) -> None:
    del environment["ENTRA_TENANT_ID"]
    environment["PORT"] = "none"
    environment["ENTRA_CLIENT_IDD"] = "x"
    for command in ("serve", "check-config"):
        status, out, err = await finished(await acs_auth(environment, command))
        assert status == 2
        assert out == ""
        for name in ("ENTRA_TENANT_ID is not set", "PORT", "ENTRA_CLIENT_IDD is not a setting"):
            assert name in err
        assert "Traceback" not in err


async def test_check_config_shows_what_is_in_effect_without_secrets(environment: dict[str, str]) -> None:
    status, out, err = await finished(await acs_auth(environment, "check-config"))
    assert (status, err) == (0, "")
    assert f"PORT={environment['PORT']}" in out
    assert "ACS_CONNECTION_STRING=(set, not shown)" in out
    assert "accesskey" not in out


async def test_a_busy_port_is_told_in_one_sentence(environment: dict[str, str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", int(environment["PORT"])))
        taken.listen()
        status, _, err = await finished(await acs_auth(environment, "serve"))
    assert status == 1
    assert f"Port {environment['PORT']} is taken" in err
    assert "Traceback" not in err


async def test_a_store_that_cannot_be_opened_stops_the_start(environment: dict[str, str], tmp_path: Path) -> None:
    environment["SQLITE_PATH"] = str(tmp_path / "missing" / "mappings.sqlite")
    status, _, err = await finished(await acs_auth(environment, "serve"))
    assert status == 1
    assert "mapping store" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("kind", ["damaged", "a pipe", "a device"])
async def test_a_mappings_file_that_cannot_be_used_stops_the_start_in_one_sentence(
    environment: dict[str, str], tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "mappings.sqlite"
    if kind == "a pipe":
        os.mkfifo(path)
    elif kind == "a device":
        path = Path("/dev/null")
    else:
        path.write_bytes(b"SQLite format 3\0" + b"\xff" * 8192)
    status, _, err = await finished(await acs_auth(environment | {"SQLITE_PATH": str(path)}, "serve"))
    assert status == 1
    assert f"The SQLite file {path} can't be used." in err
    assert "Traceback" not in err


async def test_sigterm_lets_what_is_in_flight_finish(environment: dict[str, str], local_azure: LocalAzure) -> None:
    token = local_azure.entra.access_token("alex")
    async with serving(environment) as service, aiohttp.ClientSession(service.url) as session:
        async with session.get("/health/live") as answer:
            assert "Server" not in answer.headers
        may_answer = asyncio.Event()
        local_azure.acs.faults.script("create_identity", Fault(until=may_answer))

        async def post() -> int:
            async with session.post("/api/user", headers={"Authorization": f"Bearer {token}"}) as answer:
                return answer.status

        posting = asyncio.create_task(post())
        await local_azure.acs.faults.arrived("create_identity")
        service.process.send_signal(signal.SIGTERM)
        await not_accepting(service)
        may_answer.set()
        assert await posting == 201
        status, log = await stopped(service)
        assert status == 0
        assert "Traceback" not in log


async def test_a_restart_keeps_identities(environment: dict[str, str], local_azure: LocalAzure) -> None:
    headers = {"Authorization": f"Bearer {local_azure.entra.access_token('alex')}"}
    identities = []
    for expected in (201, 200):
        async with serving(environment) as service, aiohttp.ClientSession(service.url) as session:
            async with session.post("/api/user", headers=headers) as answer:
                assert answer.status == expected
                identities.append((await answer.json())["acsUserIdentity"])
            service.process.send_signal(signal.SIGTERM)
            assert (await stopped(service))[0] == 0
    assert identities[0] == identities[1]


async def test_an_oversized_token_gets_its_answer_over_the_wire_too(environment: dict[str, str]) -> None:
    async with serving(environment) as service, aiohttp.ClientSession(service.url) as session:
        headers = {"Authorization": "Bearer " + "x" * 20_000}
        async with session.get("/api/user", headers=headers) as answer:
            assert answer.status == 401
            assert (await answer.json())["error"] == "invalid_token"


async def test_log_lines_hold_no_token_and_no_user(environment: dict[str, str], local_azure: LocalAzure) -> None:
    token = local_azure.entra.access_token("alex")
    user = local_azure.entra.users["alex"]
    async with serving(environment) as service, aiohttp.ClientSession(service.url) as session:
        headers = {"Authorization": f"Bearer {token}"}
        async with session.post("/api/user", headers=headers) as answer:
            identity = (await answer.json())["acsUserIdentity"]
        async with session.get("/api/token", headers=headers) as answer:
            acs_token = (await answer.json())["token"]
        service.process.send_signal(signal.SIGTERM)
        _, log = await stopped(service)
    assert '"route":"/api/token"' in log.replace(" ", "")
    for secret in (token, acs_token, identity, user.object_id, environment["ACS_CONNECTION_STRING"]):
        assert secret not in log


@pytest.mark.parametrize(
    ("host", "status", "words"),
    [
        ("[::]", 2, "without brackets"),
        ("*", 2, "IP address or a host name"),
        ("no-such-host.invalid", 1, "HOST=no-such-host.invalid is a name that can't be resolved"),
        ("192.0.2.1", 1, "HOST=192.0.2.1 can't be listened on"),
        ("2001:db8::1", 1, "HOST=2001:db8::1 can't be listened on"),
        ("::1%none", 1, "HOST=::1%none"),
    ],
)
async def test_a_host_that_cannot_be_listened_on_is_told_in_one_sentence(
    environment: dict[str, str], host: str, status: int, words: str
) -> None:
    environment["HOST"] = host
    ended, _, err = await finished(await acs_auth(environment, "serve"))
    assert ended == status
    assert words in err
    assert "Traceback" not in err


def test_a_low_port_without_privileges_is_told() -> None:
    server = ServerSettings.model_validate({"port": 80})
    assert _why_not_bound(server, PermissionError(errno.EACCES, "Permission denied")).startswith("Port 80 needs priv")


@pytest.mark.parametrize("kind", ["a directory", "Latin-1"])
@pytest.mark.parametrize("command", ["serve", "check-config"])
async def test_a_file_env_that_cannot_be_read_is_told_in_one_sentence(
    environment: dict[str, str], tmp_path: Path, kind: str, command: str
) -> None:
    if kind == "a directory":
        (tmp_path / ".env").mkdir()
    else:
        (tmp_path / ".env").write_bytes(b"ENTRA_REQUIRED_SCOPE=zug\xe4nglich")
    status, out, err = await finished(await acs_auth(environment, command, directory=tmp_path))
    assert (status, out) == (2, "")
    assert ".env can't be read" in err
    assert "Traceback" not in err


async def test_check_config_says_whose_tokens_are_taken_and_where_values_come_from(
    environment: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text("TRUSTED_PROXY_HOPS=2\n")
    status, out, _ = await finished(await acs_auth(environment, "check-config", directory=tmp_path))
    assert status == 0
    assert "TRUSTED_PROXY_HOPS=2  # .env, line 1" in out
    assert f"PORT={environment['PORT']}  # environment" in out
    assert "Callers: users of Microsoft Entra ID, tenant" in out
    status, out, _ = await finished(await acs_auth(environment, "check-config", "--json", directory=tmp_path))
    document = json.loads(out)
    assert document["sources"]["TRUSTED_PROXY_HOPS"] == ".env, line 1"
    assert document["callers"].startswith("users of Microsoft Entra ID")
    assert document["settings"].keys() == document["sources"].keys()


@pytest.mark.parametrize("command", ["serve", "check-config"])
async def test_a_certificate_that_cannot_work_stops_the_start(
    environment: dict[str, str], tmp_path: Path, command: str
) -> None:
    pair = certified(rsa_key("sound"))
    path = tmp_path / "client.pem"
    path.write_bytes(encoded(pair.key, password=b"x") + pair.certificate_pem)
    del environment["ENTRA_CLIENT_SECRET"]
    environment |= {"ENTRA_CLIENT_CERTIFICATE_PATH": str(path), "STORAGE_BACKEND": "graph"}
    status, _, err = await finished(await acs_auth(environment, command))
    assert status == 2
    assert "is encrypted" in err


@pytest.mark.parametrize("command", ["serve", "check-config"])
async def test_a_missing_ca_bundle_stops_the_start(environment: dict[str, str], command: str) -> None:
    environment |= {"REQUESTS_CA_BUNDLE": "/nope.pem", "STORAGE_BACKEND": "graph"}
    status, _, err = await finished(await acs_auth(environment, command))
    assert status == 2
    assert "REQUESTS_CA_BUNDLE names no file: /nope.pem." in err


@pytest.mark.parametrize("missing", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
async def test_one_of_the_two_variables_for_ca_bundles_is_enough_for_all_upstreams(
    environment: dict[str, str], local_azure: LocalAzure, missing: str
) -> None:
    for name in (missing, "SSL_CERT_DIR", "CURL_CA_BUNDLE"):
        environment.pop(name, None)
    headers = {"Authorization": f"Bearer {local_azure.entra.access_token('alex')}"}
    async with (
        serving(environment | {"STORAGE_BACKEND": "graph"}) as service,
        aiohttp.ClientSession() as session,
        session.post(f"{service.url}/api/user", headers=headers) as answer,
    ):
        assert answer.status == 201
