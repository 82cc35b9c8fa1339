"""CA bundles: checked at the start, and one choice for aiohttp and requests alike."""

import asyncio
import shutil
from pathlib import Path

import aiohttp
import pytest

from local_azure.environment import LocalAzure
from quart_app.auth.on_behalf_of.msal_http import HttpClient
from tests.support.certificates import certified, rsa_key
from upstream.certificate_authorities import TrustedAuthorities, unusable_bundles
from upstream.http_session import new_http_session

VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.fixture
def bundle(local_azure: LocalAzure) -> str:
    return str(local_azure.authority.certificate_path)


@pytest.mark.parametrize("name", VARIABLES)
def test_a_bundle_that_is_missing_is_told(name: str) -> None:
    assert list(unusable_bundles({name: "/nope.pem"})) == [f"{name} names no file: /nope.pem."]


def test_openssl_takes_no_directory_for_a_file(tmp_path: Path) -> None:
    (told,) = unusable_bundles({"SSL_CERT_FILE": str(tmp_path)})
    assert told == f"SSL_CERT_FILE names no file: {tmp_path}."


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
@pytest.mark.parametrize("content", [b"", b"# none\n", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_a_bundle_without_a_certificate_is_told(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / "bundle.pem"
    path.write_bytes(content)
    (told,) = unusable_bundles({name: str(path)})
    assert told.startswith(f"{name}: no certificate can be read from {path}")


def test_sound_bundles_are_not_told(bundle: str, tmp_path: Path) -> None:
    assert list(unusable_bundles({})) == []
    assert list(unusable_bundles(dict.fromkeys(VARIABLES, ""))) == []
    assert list(unusable_bundles({name: bundle for name in VARIABLES if name != "SSL_CERT_DIR"})) == []
    assert list(unusable_bundles({"SSL_CERT_DIR": str(tmp_path), "REQUESTS_CA_BUNDLE": str(tmp_path)})) == []


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_one_variable_is_enough_for_msal(
    environment: pytest.MonkeyPatch, local_azure: LocalAzure, bundle: str, name: str
) -> None:
    environment.setenv(name, bundle)
    client = HttpClient(5, 1)
    url = f"{local_azure.service_environment()['ENTRA_AUTHORITY_HOST']}/common/v2.0/.well-known/openid-configuration"
    answer = await asyncio.to_thread(client.get, url)
    assert answer.status_code == 200
    await client.aclose()


@pytest.mark.parametrize("name", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_one_variable_of_requests_is_enough_for_aiohttp(
    environment: pytest.MonkeyPatch, local_azure: LocalAzure, bundle: str, name: str
) -> None:
    environment.setenv(name, bundle)
    environment.setenv("SSL_CERT_DIR", "/etc/ssl/certs")  # as some images do
    url = f"{local_azure.service_environment()['ENTRA_AUTHORITY_HOST']}/common/v2.0/.well-known/openid-configuration"
    async with new_http_session() as session, session.get(url) as answer:
        assert answer.status == 200


def test_openssls_variables_come_first_for_aiohttp(bundle: str) -> None:
    assert TrustedAuthorities({"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": "/another.pem"}).now() is True


async def test_a_bundle_that_goes_away_while_running_is_not_missed(
    environment: pytest.MonkeyPatch, local_azure: LocalAzure, bundle: str, tmp_path: Path
) -> None:
    path = tmp_path / "bundle.pem"
    await asyncio.to_thread(shutil.copyfile, bundle, path)
    environment.setenv("REQUESTS_CA_BUNDLE", str(path))
    client = HttpClient(5, 1)
    path.unlink()
    url = f"{local_azure.service_environment()['ENTRA_AUTHORITY_HOST']}/common/v2.0/.well-known/openid-configuration"
    assert (await asyncio.to_thread(client.get, url)).status_code == 200
    await client.aclose()


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"])
async def test_a_bundle_that_is_replaced_while_running_counts_from_then_on(
    environment: pytest.MonkeyPatch, local_azure: LocalAzure, bundle: str, tmp_path: Path, name: str
) -> None:
    sound, path = await asyncio.to_thread(Path(bundle).read_bytes), tmp_path / "bundle.pem"
    replace_file(path, certified(rsa_key("another authority"), "another authority").certificate_pem)
    environment.setenv(name, str(path))
    async with new_http_session(keep=False) as session:

        async def status() -> int:
            async with session.get(f"{local_azure.entra.url}/common/v2.0/.well-known/openid-configuration") as answer:
                return answer.status

        if name == "REQUESTS_CA_BUNDLE":  # what aiohttp trusts by itself was settled when it was imported
            with pytest.raises(aiohttp.ClientConnectorCertificateError):
                await status()
        replace_file(path, sound)
        assert await status() == 200
        replace_file(path, certified(rsa_key("another authority"), "another authority").certificate_pem)
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await status()


async def test_a_bundle_that_can_no_longer_be_read_leaves_the_old_one_in_use(
    environment: pytest.MonkeyPatch,
    local_azure: LocalAzure,
    bundle: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = tmp_path / "bundle.pem"
    replace_file(path, await asyncio.to_thread(Path(bundle).read_bytes))
    environment.setenv("REQUESTS_CA_BUNDLE", str(path))
    async with new_http_session(keep=False) as session:
        replace_file(path, b"half of a certif")
        for _ in range(2):
            async with session.get(local_azure.entra.url) as answer:
                await answer.read()
    (warning,) = caplog.messages
    assert warning.startswith("REQUESTS_CA_BUNDLE: no certificate can be read from the file any more")


def replace_file(path: Path, content: bytes) -> None:
    """As mounts are renewed: at once, and never half."""
    written = path.with_suffix(".new")
    written.write_bytes(content)
    written.replace(path)
