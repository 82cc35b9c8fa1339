"""Client certificates: what stands in a PEM file is found whatever is around it, and what can't work is refused."""

import asyncio
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import load_pem_private_key, pkcs12

from quart_app.settings import ClientCertificate, load_settings, shown_settings
from quart_app.stores import open_mapping_store
from tests.quart_app.settings.conftest import faults
from tests.support.certificates import Pair, certified, encoded, rsa_key, write_certificate
from upstream.retrying import RetryPolicy

ROOT = certified(rsa_key("root"), "root")
INTERMEDIATE = certified(rsa_key("intermediate"), "intermediate", issuer=ROOT)
LEAF = certified(rsa_key("leaf"), "acs-auth", issuer=INTERMEDIATE)
OTHER = certified(rsa_key("other"), "other")
RENEWED = certified(rsa_key("leaf"), "acs-auth", issuer=INTERMEDIATE, ends=timedelta(days=300))
CHAIN = [LEAF, INTERMEDIATE, ROOT]
BAG = b"Bag Attributes\n    friendlyName: acs-auth\n    localKeyID: 01 02\nKey Attributes: <No Attributes>\n"


def indented(content: bytes) -> bytes:
    return b"".join(b"    " + line for line in content.splitlines(keepends=True))


def pems(*pairs: Pair) -> bytes:
    return b"".join(pair.certificate_pem for pair in pairs)


SOUND: dict[str, tuple[bytes, list[Pair]]] = {
    "key first": (LEAF.key_pem + LEAF.certificate_pem, [LEAF]),
    "certificate first": (LEAF.certificate_pem + LEAF.key_pem, [LEAF]),
    "the older form of an RSA key": (encoded(LEAF.key, old=True) + LEAF.certificate_pem, [LEAF]),
    "leaf, then its chain": (LEAF.key_pem + pems(*CHAIN), CHAIN),
    "root before leaf": (LEAF.key_pem + pems(*reversed(CHAIN)), CHAIN),
    "the key between the certificates": (ROOT.certificate_pem + LEAF.key_pem + pems(LEAF, INTERMEDIATE), CHAIN),
    "a foreign certificate": (LEAF.key_pem + pems(OTHER, LEAF), [LEAF]),
    "one twice": (LEAF.key_pem + pems(LEAF, LEAF), [LEAF]),
    "a renewed one for the same key": (LEAF.key_pem + pems(LEAF, RENEWED), [RENEWED]),
    "bag attributes": (BAG + LEAF.key_pem + BAG + LEAF.certificate_pem, [LEAF]),
    "a byte order mark": (b"\xef\xbb\xbf" + LEAF.key_pem + LEAF.certificate_pem, [LEAF]),
    "UTF-16": ((LEAF.key_pem + LEAF.certificate_pem).decode().encode("utf-16"), [LEAF]),
    "comments in UTF-8": ("# für Prod, läuft ab\n".encode() + LEAF.key_pem + "# ключ\n".encode() + pems(LEAF), [LEAF]),
    "comments in Latin-1": (b"# f\xfcr Prod\n" + LEAF.key_pem + LEAF.certificate_pem, [LEAF]),
    "Windows' line ends": ((LEAF.key_pem + pems(LEAF, INTERMEDIATE)).replace(b"\n", b"\r\n"), [LEAF, INTERMEDIATE]),
    "indented, as from a YAML file": (indented(LEAF.key_pem + LEAF.certificate_pem), [LEAF]),
    "no line end at the end": ((LEAF.key_pem + LEAF.certificate_pem).rstrip(), [LEAF]),
}


@pytest.mark.parametrize("kind", SOUND)
def test_key_and_certificates_are_found_and_put_in_order(tmp_path: Path, kind: str) -> None:
    content, expected = SOUND[kind]
    path = tmp_path / "client.pem"
    path.write_bytes(content)
    loaded = ClientCertificate.load(path)
    assert loaded.certificates.encode() == pems(*expected)
    assert load_pem_private_key(loaded.private_key.encode(), None).public_key() == LEAF.key.public_key()
    assert loaded.ends == expected[0].certificate.not_valid_after_utc
    assert "PRIVATE" not in repr(loaded)


def a_certificate_for_ed25519() -> bytes:
    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + LEAF.certificate_pem


def a_request_instead_of_a_certificate() -> bytes:
    builder = x509.CertificateSigningRequestBuilder().subject_name(LEAF.certificate.subject)
    assert not isinstance(LEAF.key, ec.EllipticCurvePrivateKey)
    return LEAF.key_pem + builder.sign(LEAF.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def pfx() -> bytes:
    assert not isinstance(LEAF.key, ec.EllipticCurvePrivateKey)
    return pkcs12.serialize_key_and_certificates(b"x", LEAF.key, LEAF.certificate, None, serialization.NoEncryption())


def elliptic() -> bytes:
    pair = certified(ec.generate_private_key(ec.SECP256R1()))
    return pair.key_pem + pair.certificate_pem


def elliptic_with_parameters() -> bytes:
    pair = certified(ec.generate_private_key(ec.SECP256R1()))
    parameters = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
    return parameters + encoded(pair.key, old=True) + pair.certificate_pem


def short() -> bytes:
    pair = certified(rsa_key("short", 1024))
    return pair.key_pem + pair.certificate_pem


UNUSABLE: dict[str, tuple[Callable[[], bytes], str]] = {
    "an encrypted key": (lambda: encoded(LEAF.key, password=b"x") + LEAF.certificate_pem, "is encrypted"),
    "an encrypted key of the older form": (
        lambda: encoded(LEAF.key, password=b"x", old=True) + LEAF.certificate_pem,
        "is encrypted",
    ),
    "an EC key": (elliptic, "is not an RSA key"),
    "an EC key with its parameters": (elliptic_with_parameters, "is not an RSA key"),
    "an Ed25519 key": (a_certificate_for_ed25519, "is not an RSA key"),
    "the key of another certificate": (lambda: OTHER.key_pem + LEAF.certificate_pem, "don't belong together"),
    "only the chain": (lambda: LEAF.key_pem + pems(INTERMEDIATE, ROOT), "don't belong together"),
    "a short RSA key": (short, "has only 1024 bits"),
    "two keys": (lambda: LEAF.key_pem + OTHER.key_pem + LEAF.certificate_pem, "several private keys"),
    "no key": (lambda: LEAF.certificate_pem, "without a private key"),
    "no certificate": (lambda: LEAF.key_pem, "without a certificate"),
    "a request instead of a certificate": (a_request_instead_of_a_certificate, "without a certificate"),
    "nothing": (lambda: b"", "without a private key"),
    "a damaged key": (lambda: LEAF.key_pem.replace(b"M", b"!", 1) + LEAF.certificate_pem, "private key can't be read"),
    "a cut certificate": (
        lambda: LEAF.key_pem + b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----",
        "certificate that can't be read",
    ),
    "PFX": (pfx, "a binary file"),
    "DER": (lambda: LEAF.certificate.public_bytes(serialization.Encoding.DER), "a binary file"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_one_that_cannot_work_is_refused_in_one_sentence(
    environment: pytest.MonkeyPatch, tmp_path: Path, kind: str
) -> None:
    content, reason = UNUSABLE[kind]
    path = tmp_path / "client.pem"
    path.write_bytes(content())
    environment.setenv("ENTRA_CLIENT_CERTIFICATE_PATH", str(path))
    environment.setenv("STORAGE_BACKEND", "graph")
    environment.setenv("GRAPH_SEAL_KEYS", "A" * 44)
    (told,) = faults()
    assert told.startswith("ENTRA_CLIENT_CERTIFICATE_PATH: names ")
    assert reason in told


def test_what_openssl_encrypts_is_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.pem", tmp_path / "client.pem"
    plain.write_bytes(LEAF.key_pem)
    subprocess.run(
        ["openssl", "pkcs8", "-topk8", "-passout", "pass:x", "-in", plain, "-out", path],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + LEAF.certificate_pem)
    environment.setenv("ENTRA_CLIENT_CERTIFICATE_PATH", str(path))
    (told,) = faults()
    assert "is encrypted; decrypt it: openssl pkey" in told


@pytest.mark.parametrize("kind", ["nothing", "a directory", "a dangling link"])
def test_a_path_without_a_file_is_refused(environment: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "client.pem"
    if kind == "a directory":
        path.mkdir()
    elif kind == "a dangling link":
        path.symlink_to(tmp_path / "nothing.pem")
    environment.setenv("ENTRA_CLIENT_CERTIFICATE_PATH", str(path))
    assert faults() == ["ENTRA_CLIENT_CERTIFICATE_PATH: names no file."]


def test_an_expired_one_is_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair = certified(rsa_key("leaf"), ends=timedelta(days=-1))
    environment.setenv("ENTRA_CLIENT_CERTIFICATE_PATH", str(write_certificate(tmp_path / "client.pem", pair)))
    (told,) = faults()
    assert f"expired on {pair.certificate.not_valid_after_utc:%Y-%m-%d}; make one" in told


def test_one_that_does_not_count_yet_is_refused(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pair = certified(rsa_key("leaf"), begins=timedelta(days=2))
    environment.setenv("ENTRA_CLIENT_CERTIFICATE_PATH", str(write_certificate(tmp_path / "client.pem", pair)))
    (told,) = faults()
    assert "is valid only from" in told


def test_its_end_is_shown(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write_certificate(tmp_path / "client.pem", LEAF)
    environment.setenv("ENTRA_CLIENT_CERTIFICATE_PATH", str(path))
    shown = {each.name: each.value for each in shown_settings(load_settings(None))}
    ends = LEAF.certificate.not_valid_after_utc
    assert shown["ENTRA_CLIENT_CERTIFICATE_PATH"] == f"{path} (until {ends:%Y-%m-%d})"


async def test_one_that_expires_soon_is_told_at_the_start(
    environment: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("STORAGE_BACKEND", "graph")
    environment.setenv("GRAPH_SEAL_KEYS", "A" * 44)
    path = tmp_path / "client.pem"
    environment.setenv("ENTRA_CLIENT_CERTIFICATE_PATH", str(path))
    for days, told in ((100, False), (20, True)):
        write_certificate(path, certified(rsa_key("leaf"), ends=timedelta(days=days)))
        caplog.clear()
        async with open_mapping_store(await asyncio.to_thread(load_settings, None), RetryPolicy()):
            pass
        assert ("The client certificate expires on" in caplog.text) == told
