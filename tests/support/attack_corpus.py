"""Hostile requests as data: what is sent, and the one answer that it must get.

Each entry is the bytes of a whole request, as an attacker writes them to the socket. Two kinds of forgery are told
apart. In most, an attacker signs with a key of their own or changes what Entra ID signed. In those made with `genuine`,
Entra's own key signs something that Entra never writes: nobody can send those, and they show that a signature alone is
not enough.

The whole is sent once for each door: by a `Forger`, whose good tokens are Entra ID's, and by an `OidcForger`, whose
good tokens are another issuer's. `CROSSINGS` are those by which a token of one door claims to be the other's.
"""

import base64
import hashlib
import hmac
import json
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from local_azure.entra.directory import API, BROWSER, HOME_TENANT, OTHER_TENANT, USERS
from local_azure.entra.signing_keys import PERSONAL_ACCOUNTS_TENANT_ID
from local_azure.environment import LocalAzure
from tests.support.oidc_issuer import OidcIssuer

HOME, OTHER = HOME_TENANT.tenant_id, OTHER_TENANT.tenant_id
ALEX, MEGAN = USERS["alex"], USERS["megan"]
GRAPH_ID = "00000003-0000-0000-c000-000000000000"
DEEP = 2_000  # levels of nesting; Python's own parser gives up at about a thousand

Part = Mapping[str, Any] | bytes
Sign = Callable[[bytes], bytes]


@dataclass(frozen=True, slots=True)
class Forger:
    """What an attacker has: tokens of his own, the public keys, a key pair, a server. And, for `genuine`, Entra's key.

    `attacker_url` is the attacker's server, with a certificate that the service trusts. `acs_token` is an access token
    that ACS issued to Alex. `audience` and `scope` are what the door asks for, `other` is the
    attacker at the other door.
    """

    door: ClassVar[str] = "entra"
    audience: ClassVar[str] = API.client_id
    scope: ClassVar[str] = "access_as_user"

    azure: LocalAzure
    strangers_key: rsa.RSAPrivateKey
    attacker_url: str
    acs_token: str = field(repr=False)
    other: "Forger | None" = field(default=None, kw_only=True, repr=False)

    @property
    def key(self) -> rsa.RSAPrivateKey:
        """The key with which Entra signs."""
        return self.azure.entra.keys.current.private_key

    @property
    def key_id(self) -> str:
        """The id of that key."""
        return self.azure.entra.keys.current.kid

    def token(self, user: str = "alex", **how: Any) -> str:
        """A good token; `how` as for `Entra.access_token`."""
        return self.azure.entra.access_token(user, **how)

    def may_resolve(self, user: str = "alex") -> str:
        """A good token with the scope to ask for colleagues' identities."""
        return self.token(user, scope=f"{self.scope} {API.scopes[1]}")

    def header(self, **changed: Any) -> dict[str, Any]:
        """The header of a good token with other members; one given as `None` is left out."""
        return changed_members(jwt.get_unverified_header(self.token()), changed)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """The claims of a good token with other ones; one given as `None` is left out."""
        return changed_members(jwt.decode(self.token(), options={"verify_signature": False}), changed)

    def genuine(self, header: Part | None = None, claims: Part | None = None) -> str:
        """Anything at all, signed by Entra's own key."""
        return self._signed(header, claims, self.key)

    def strange(self, header: Part | None = None, claims: Part | None = None) -> str:
        """Anything at all, signed by the attacker's key."""
        return self._signed(header, claims, self.strangers_key)

    def with_secret(self, secret: bytes, **header: Any) -> str:
        """HS256 with something that everybody knows as the secret."""
        return compact(
            self.header(alg="HS256", **header),
            self.claims(),
            lambda text: hmac.new(secret, text, hashlib.sha256).digest(),
        )

    def public(self, encoding: serialization.Encoding, form: serialization.PublicFormat) -> bytes:
        """Entra's public key, as everybody can fetch it."""
        return self.key.public_key().public_bytes(encoding, form)

    def strangers_jwk(self) -> dict[str, Any]:
        """The attacker's public key as a JSON Web Key with the id of Entra's key."""
        jwk = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.strangers_key.public_key()))
        return {**jwk, "kid": self.key_id, "use": "sig", "alg": "RS256"}

    def _signed(self, header: Part | None, claims: Part | None, key: rsa.RSAPrivateKey) -> str:
        return compact(
            self.header() if header is None else header, self.claims() if claims is None else claims, rsa_signature(key)
        )


@dataclass(frozen=True, slots=True)
class OidcForger(Forger):
    """The same where the good tokens are those of another issuer, whose key is the one for `genuine`.

    Its tokens look as much like Entra ID's as they can: the same users under the same ids, even in the same tenant.
    """

    oidc: OidcIssuer

    door: ClassVar[str] = "oidc"
    audience: ClassVar[str] = "acs.fabrikam.example"
    scope: ClassVar[str] = "acs.call"

    @property
    def key(self) -> rsa.RSAPrivateKey:
        """The key with which the other issuer signs."""
        return self.oidc.key

    @property
    def key_id(self) -> str:
        """See `Forger.key_id`."""
        return self.oidc.key_id

    def token(self, user: str = "alex", **how: Any) -> str:
        """A good token of the other issuer; `scope` is what it may do, all else are claims."""
        changed = dict(how)
        said = {
            "aud": self.audience,
            "sub": "pairwise",
            "name": USERS[user].name,
            "oid": USERS[user].object_id,
            "tid": HOME,
            "scp": changed.pop("scope", self.scope),
            "azp": BROWSER.client_id,
            "ver": "2.0",
        }
        return self.oidc.token(**{**said, **changed})


Token = Callable[[Forger], str]
Request = Callable[[Forger], bytes]


@dataclass(frozen=True, slots=True)
class Attack:
    """One hostile request. `error` is the error's name in the answer, `None` where there is no body (HEAD).

    `reason` is why its token is refused, as the service tells its operators; `None` where none is looked at.
    """

    name: str
    request: Request = field(repr=False)
    status: int = 401
    error: str | None = "invalid_token"
    reason: str | None = None


def changed_members(members: Mapping[str, Any], changed: Mapping[str, Any]) -> dict[str, Any]:
    """`members` with the changes made; `None` removes."""
    return {name: value for name, value in {**members, **changed}.items() if value is not None}


def encoded(part: Part) -> str:
    """Base64url of JSON, or of bytes as they are."""
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def compact(header: Part, claims: Part, sign: Sign) -> str:
    """A JSON Web Signature in compact form."""
    text = f"{encoded(header)}.{encoded(claims)}"
    return f"{text}.{encoded(sign(text.encode()))}"


def rsa_signature(key: rsa.RSAPrivateKey, digest: hashes.HashAlgorithm | None = None, *, pss: bool = False) -> Sign:
    """RS256, or with another hash or padding."""
    used = digest or hashes.SHA256()
    filled = padding.PSS(padding.MGF1(used), used.digest_size) if pss else padding.PKCS1v15()
    return lambda text: key.sign(text, filled, used)


def http(
    *lines: str | bytes, method: str = "GET", target: str = "/api/user", version: str = "HTTP/1.1", body: bytes = b""
) -> bytes:
    """A request with these header lines; `Host` and `Connection: close` are added."""
    all_lines: list[str | bytes] = [f"{method} {target} {version}", "Host: localhost", "Connection: close", *lines]
    encoded_lines = [line if isinstance(line, bytes) else line.encode() for line in all_lines]
    return b"\r\n".join([*encoded_lines, b"", body])


def bearer(token: str) -> str:
    """The header line of a token."""
    return f"Authorization: Bearer {token}"


def as_request(make: Token) -> Request:
    """The token as anybody would send it."""
    return lambda forger: http(bearer(make(forger)))


def repeated(members: Mapping[str, Any], name: str, first: Any) -> bytes:
    """A JSON object that says `name` twice: `first`, and then as it is in `members`."""
    return f"{{{json.dumps(name)}:{json.dumps(first)},{json.dumps(members)[1:]}".encode()


def raw_claim(name: str, text: str) -> Token:
    """A genuine token in which one claim is written as `text`, be it JSON or not."""

    def make(forger: Forger) -> str:
        rest = json.dumps(forger.claims(**{name: None}))
        return forger.genuine(claims=f'{{"{name}":{text},{rest[1:]}'.encode())

    return make


def claims(**changed: Any) -> Token:
    """A genuine token with other claims."""
    return lambda forger: forger.genuine(claims=forger.claims(**changed))


def header(**changed: Any) -> Token:
    """A genuine token with another header."""
    return lambda forger: forger.genuine(header=forger.header(**changed))


def strangers_header(**changed: Any) -> Token:
    """A stranger's token with another header."""
    return lambda forger: forger.strange(header=forger.header(**changed))


def algorithm(name: Any, sign: Callable[[Forger], Sign]) -> Token:
    """A token whose header names another algorithm, signed accordingly."""
    return lambda forger: compact(forger.header(alg=name), forger.claims(), sign(forger))


def unsigned(name: Any) -> Token:
    """A token that says that it needs no signature, without one."""
    return lambda forger: f"{encoded(forger.header(alg=name))}.{encoded(forger.claims())}."


def reshaped(shape: Callable[[str, str, str], str]) -> Token:
    """The three parts of a good token, put together in another way."""

    def make(forger: Forger) -> str:
        first, second, third = forger.token().split(".")
        return shape(first, second, third)

    return make


def issuer(text: str, **changed: Any) -> Token:
    """A genuine token with another issuer; `{entra}` stands for Entra's address."""
    return lambda forger: forger.genuine(
        claims=forger.claims(iss=text.replace("{entra}", forger.azure.entra.url), **changed)
    )


def pointing_at(name: str) -> Token:
    """A stranger's token whose header says where its key can be had: at the attacker's."""
    return lambda forger: forger.strange(header=forger.header(**{name: f"{forger.attacker_url}/keys"}))


def self_made_issuer(forger: Forger) -> str:
    """A token of an issuer of the attacker's own, whose discovery document is there for everybody."""
    return forger.strange(
        header=forger.header(kid=f"{forger.attacker_url}/keys"), claims=forger.claims(iss=f"{forger.attacker_url}/v2.0")
    )


def elliptic(curve: ec.EllipticCurve, digest: hashes.HashAlgorithm) -> Callable[[Forger], Sign]:
    """A signature by a key of the attacker's own."""
    return lambda _: lambda text: ec.generate_private_key(curve).sign(text, ec.ECDSA(digest))


def signed_with(key: str, digest: hashes.HashAlgorithm, *, pss: bool = False) -> Callable[[Forger], Sign]:
    """A signature by Entra's key, or the stranger's, in another way than RS256."""
    return lambda forger: rsa_signature(getattr(forger, key), digest, pss=pss)


def with_standard_alphabet(forger: Forger) -> str:
    """A good token with `+` and `/` for `-` and `_`. Signatures are random enough to hold one of them."""
    first, second, third = forger.token().split(".")
    return f"{first}.{second}.{third.replace('-', '+').replace('_', '/')}"


PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
SPKI, PKCS1 = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.PublicFormat.PKCS1

ALGORITHMS: dict[str, Token] = {
    "HS256 with the public key in PEM as secret": lambda f: f.with_secret(f.public(PEM, SPKI)),
    "HS256 with the public key in PEM, stripped": lambda f: f.with_secret(f.public(PEM, SPKI).strip()),
    "HS256 with the public key in PKCS 1 PEM": lambda f: f.with_secret(f.public(PEM, PKCS1)),
    "HS256 with the public key in DER": lambda f: f.with_secret(f.public(DER, SPKI)),
    "HS256 with the modulus": lambda f: f.with_secret(
        f.key.public_key().public_numbers().n.to_bytes(f.key.key_size // 8, "big")
    ),
    "HS256 with the modulus as the key set writes it": lambda f: f.with_secret(
        json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(f.key.public_key()))["n"].encode()
    ),
    "HS256 with the certificate": lambda f: f.with_secret(f.azure.entra.keys.current.certificate),
    "HS256 with an empty secret": lambda f: f.with_secret(b""),
    "HS256 with an empty secret and a key id that is an empty file": lambda f: f.with_secret(
        b"", kid="../../../../dev/null"
    ),
    "HS512": algorithm("HS512", lambda _: lambda text: hmac.new(b"secret", text, hashlib.sha512).digest()),
    "RS384 with Entra's key": algorithm("RS384", signed_with("key", hashes.SHA384())),
    "RS512 with Entra's key": algorithm("RS512", signed_with("key", hashes.SHA512())),
    "PS256 with Entra's key": algorithm("PS256", signed_with("key", hashes.SHA256(), pss=True)),
    "RS256 in the header, PS256 in truth": algorithm("RS256", signed_with("key", hashes.SHA256(), pss=True)),
    "RS256 in the header, SHA-1 in truth": algorithm("RS256", signed_with("key", hashes.SHA1())),
    "ES256": algorithm("ES256", elliptic(ec.SECP256R1(), hashes.SHA256())),
    "ES256 with a signature of zeros": algorithm("ES256", lambda _: lambda _: bytes(64)),
    "ES256K": algorithm("ES256K", elliptic(ec.SECP256K1(), hashes.SHA256())),
    "EdDSA": algorithm("EdDSA", lambda _: ed25519.Ed25519PrivateKey.generate().sign),
    "RS256 with a signature of zeros": algorithm("RS256", lambda f: lambda _: bytes(f.key.key_size // 8)),
    "RS256 with a signature of one": algorithm("RS256", lambda _: lambda _: b"\x01"),
    "none": unsigned("none"),
    "None": unsigned("None"),
    "NONE": unsigned("NONE"),
    "nOnE": unsigned("nOnE"),
    "none with the signature left in place": reshaped(
        lambda _, payload, signature: f"{encoded({'alg': 'none', 'typ': 'JWT'})}.{payload}.{signature}"
    ),
    "no algorithm": header(alg=None),
    "an algorithm that is null": lambda f: f.genuine(header={**f.header(), "alg": None}),
    "an algorithm that is a list": header(alg=["RS256", "none"]),
    "an algorithm in lower case": header(alg="rs256"),
    "an algorithm with a blank": header(alg="RS256 "),
    "two algorithms": lambda f: f.genuine(header=repeated(f.header(), "alg", "none")),
}

KEYS: dict[str, Token] = {
    "a stranger's signature": lambda f: f.strange(),
    "a stranger's key in the header": lambda f: f.strange(header=f.header(jwk=f.strangers_jwk())),
    "a stranger's certificate in the header": lambda f: f.strange(
        header=f.header(x5c=[base64.b64encode(f.azure.entra.keys.current.certificate).decode()])
    ),
    "jku at the attacker's server": pointing_at("jku"),
    "x5u at the attacker's server": pointing_at("x5u"),
    "jku without a key id": lambda f: f.strange(header=f.header(kid=None, jku=f"{f.attacker_url}/keys")),
    "a key id that is the attacker's address": lambda f: f.strange(header=f.header(kid=f"{f.attacker_url}/keys")),
    "an issuer of the attacker's own": self_made_issuer,
    "an unknown key id": header(kid="unknown"),
    "an unknown key id of a stranger": strangers_header(kid="unknown"),
    "no key id": header(kid=None),
    "no key id, but a thumbprint": lambda f: f.genuine(header=f.header(kid=None, x5t=f.header()["kid"])),
    "a key id that is null": lambda f: f.genuine(header={**f.header(), "kid": None}),
    "an empty key id": header(kid=""),
    "a key id in another case": lambda f: f.genuine(header=f.header(kid=f.header()["kid"].swapcase())),
    "a key id that climbs": strangers_header(kid="../../../../etc/hostname"),
    "a key id that is SQL": strangers_header(kid="x' UNION SELECT 'key' --"),
    "a key id that is a shell command": strangers_header(kid="|sleep 5"),
    "a key id of 10 KiB": strangers_header(kid="k" * 10_240),
    "a key id with a NUL": lambda f: f.genuine(header=f.header(kid=f.header()["kid"] + "\0")),
    "a key id that is a number": strangers_header(kid=1),
    "a key id that is a list": lambda f: f.genuine(header=f.header(kid=[f.header()["kid"]])),
    "a key id that is an object": lambda f: f.genuine(header=f.header(kid={"kid": f.header()["kid"]})),
    "two key ids": lambda f: f.genuine(header=repeated(f.header(), "kid", "other")),
    "a key of personal accounts": lambda f: compact(
        f.header(kid=f.azure.entra.keys.personal[0].kid),
        f.claims(),
        rsa_signature(f.azure.entra.keys.personal[0].private_key),
    ),
    "a key of personal accounts under the id of an organization's": lambda f: compact(
        f.header(), f.claims(), rsa_signature(f.azure.entra.keys.personal[0].private_key)
    ),
}

HEADERS: dict[str, Token] = {
    "typ of an id token": header(typ="id+jwt"),
    "typ of a logout token": header(typ="logout+jwt"),
    "typ of a logout token, in full": header(typ="application/logout+jwt"),
    "typ of an event": header(typ="secevent+jwt"),
    "typ of a DPoP proof": header(typ="dpop+jwt"),
    "typ that is empty": header(typ=""),
    "typ of another media type": header(typ="text/jwt"),
    "typ of a JWE": header(typ="JWE"),
    "typ that is a list": header(typ=["JWT"]),
    "cty: a token in a token": header(cty="JWT"),
    "crit that names exp": header(crit=["exp"]),
    "crit that is empty": header(crit=[]),
    "crit that names a header that is there": header(crit=["kid"]),
    "b64 false": header(b64=False),
    "b64 false and critical": header(b64=False, crit=["b64"]),
    "b64 true and critical": header(b64=True, crit=["b64"]),
    "zip, compressed": lambda f: f.genuine(
        header=f.header(zip="DEF"), claims=zlib.compress(json.dumps(f.claims()).encode())
    ),
    "zip, not compressed": header(zip="DEF"),
    "a compressed bomb": lambda f: f.strange(header=f.header(zip="DEF"), claims=zlib.compress(b" " * 4_000_000)),
    "a token in a token": lambda f: f.genuine(claims=f.token().encode()),
    "an encrypted token": lambda f: ".".join(
        [encoded(f.header(alg="RSA-OAEP", enc="A256GCM")), *(encoded(b"\x07" * size) for size in (256, 12, 600, 16))]
    ),
    "an encrypted token with an empty key": lambda f: ".".join(
        [encoded(f.header(alg="dir", enc="A256GCM")), "", *(encoded(b"\x07" * size) for size in (12, 600, 16))]
    ),
    "a header that is a list": lambda f: f.genuine(header=b'["RS256"]'),
    "a header that is text": lambda f: f.genuine(header=b'"RS256"'),
    "a header that is null": lambda f: f.genuine(header=b"null"),
    "a header that is empty": lambda f: f.genuine(header=b"{}"),
    "a header that is no JSON": lambda f: f.genuine(header=b"{alg:RS256}"),
    "a header that is no UTF-8": lambda f: f.genuine(header=b'{"alg":"RS256","kid":"\xff\xfe"}'),
    "a header with a lone surrogate": lambda f: f.genuine(header=b'{"alg":"RS256","kid":"\\ud800"}'),
    "a header that nests deeply": lambda f: f.genuine(header=b"[" * DEEP + b"]" * DEEP),
    "a header member that nests deeply": lambda f: f.genuine(
        header=b'{"alg":"RS256","kid":' + b"[" * DEEP + b"]" * DEEP + b"}"
    ),
    "a header with a huge number": lambda f: f.genuine(header=b'{"alg":"RS256","kid":' + b"9" * 6_000 + b"}"),
}

TIMES: dict[str, Token] = {
    "expired": lambda f: f.token(exp=int(time.time()) - 3600),
    "expired beyond the leeway": lambda f: f.token(exp=int(time.time()) - 62),
    "no expiry": claims(exp=None),
    "an expiry that is null": lambda f: f.genuine(claims={**f.claims(), "exp": None}),
    "an expiry that is digits in text": lambda f: f.genuine(claims=f.claims(exp=str(f.claims()["exp"]))),
    "an expiry that is text": claims(exp="never"),
    "an expiry with a fraction": lambda f: f.genuine(claims=f.claims(exp=f.claims()["exp"] + 0.5)),
    "an expiry of zero": claims(exp=0),
    "a negative expiry": claims(exp=-1),
    "an expiry that is true": claims(exp=True),
    "an expiry that is a list": lambda f: f.genuine(claims=f.claims(exp=[f.claims()["exp"]])),
    "an expiry of Infinity": raw_claim("exp", "Infinity"),
    "an expiry of 1e999": raw_claim("exp", "1e999"),
    "an expiry of NaN": raw_claim("exp", "NaN"),
    "an expiry after the year 9999": claims(exp=10**12),
    "an expiry of 400 digits": raw_claim("exp", "9" * 400),
    "an expiry of 6000 digits": raw_claim("exp", "9" * 6000),
    "two expiries": lambda f: f.genuine(claims=repeated(f.claims(), "exp", 1)),
    "no issue time": claims(iat=None),
    "issued in the future": lambda f: f.genuine(claims=f.claims(iat=int(time.time()) + 600)),
    "an issue time that is digits in text": lambda f: f.genuine(claims=f.claims(iat=str(f.claims()["iat"]))),
    "an issue time that is true": claims(iat=True),
    "an issue time of NaN": raw_claim("iat", "NaN"),
    "not valid yet": lambda f: f.genuine(claims=f.claims(nbf=int(time.time()) + 600)),
    "a start that is digits in text": lambda f: f.genuine(claims=f.claims(nbf=str(f.claims()["nbf"]))),
    "a start that is null": lambda f: f.genuine(claims={**f.claims(), "nbf": None}),
    "a start of Infinity": raw_claim("nbf", "-Infinity"),
}

CLAIMS: dict[str, Token] = {
    "a changed object id": lambda f: ".".join(
        [f.token().split(".")[0], encoded(f.claims(oid=MEGAN.object_id)), f.token().split(".")[2]]
    ),
    "the payload of another user's token": lambda f: ".".join(
        [f.token("alex").split(".")[0], f.token("megan").split(".")[1], f.token("alex").split(".")[2]]
    ),
    "two object ids": lambda f: f.genuine(claims=repeated(f.claims(), "oid", MEGAN.object_id)),
    "two scopes": lambda f: f.genuine(claims=repeated(f.claims(), "scp", "other")),
    "two audiences as members": lambda f: f.genuine(claims=repeated(f.claims(), "aud", "other")),
    "an unknown claim twice": lambda f: f.genuine(claims=repeated(f.claims(), "name", "Somebody Else")),
    "a claim of NaN": raw_claim("x", "NaN"),
    "no object id": claims(oid=None),
    "an object id that is a number": claims(oid=7),
    "an object id that is a list": claims(oid=[ALEX.object_id]),
    "an object id that is null": lambda f: f.genuine(claims={**f.claims(), "oid": None}),
    "an object id that is no GUID": claims(oid="alex"),
    "an object id with a line break": claims(oid=f"{ALEX.object_id}\n"),
    "an object id in full-width digits": claims(oid=ALEX.object_id.replace("0", "\uff10")),
    "an object id that climbs": claims(oid="../../users/alex"),
    "no tenant": claims(tid=None),
    "a tenant that is a list": claims(tid=[HOME]),
    "a tenant by its domain": claims(tid=HOME_TENANT.domain),
    "a tenant in upper case": claims(tid=HOME.upper()),
    "the tenant common": claims(tid="common"),
    "an audience that is a list": lambda f: f.genuine(claims=f.claims(aud=[f.audience])),
    "this API among other audiences": lambda f: f.genuine(claims=f.claims(aud=[f.audience, GRAPH_ID])),
    "an audience that is an object": lambda f: f.genuine(claims=f.claims(aud={f.audience: True})),
    "no audience": claims(aud=None),
    "an empty audience": claims(aud=""),
    "another audience": claims(aud=GRAPH_ID),
    "the client as audience": claims(aud=BROWSER.client_id),
    "the audience in upper case": lambda f: f.genuine(claims=f.claims(aud=f.audience.upper())),
    "the audience with a slash": claims(aud=f"{API.app_id_uri}/"),
    "an audience that begins like ours": lambda f: f.genuine(claims=f.claims(aud=f"{f.audience}.evil.example")),
    "scopes that are a list": lambda f: f.genuine(claims=f.claims(scp=[f.scope])),
    "scopes that are a number": claims(scp=1),
    "scopes that are an object": lambda f: f.genuine(claims=f.claims(scp={f.scope: True})),
    "a client that is a number": claims(azp=5),
    "capabilities that are text": claims(xms_cc="cp1"),
    "claims that are a list": lambda f: f.genuine(claims=b'["oid"]'),
    "claims that are text": lambda f: f.genuine(claims=b'"oid"'),
    "claims that are null": lambda f: f.genuine(claims=b"null"),
    "no claims": lambda f: f.genuine(claims=b"{}"),
    "claims that are no JSON": lambda f: f.genuine(claims=b"oid=alex"),
    "claims that are no UTF-8": lambda f: f.genuine(claims=json.dumps(f.claims()).encode()[:-1] + b',"x":"\xff"}'),
    "claims that nest deeply": raw_claim("x", "[" * DEEP + "]" * DEEP),
    "claims of 101 levels": raw_claim("x", "[" * 100 + "]" * 100),
    "claims that nest deeply, of a stranger": lambda f: f.strange(claims=b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "claims of 17 KiB": lambda f: f.token(filler="x" * 17 * 1024),
    "claims of 60 KiB": lambda f: f.token(filler="x" * 45 * 1024),
}

KINDS: dict[str, Token] = {
    "an id token": lambda f: jwt_id_token(f, BROWSER.client_id),
    "an id token for this API": lambda f: jwt_id_token(f, f.audience),
    "a token for Microsoft Graph": lambda f: f.genuine(claims=f.claims(aud=GRAPH_ID, scp="User.Read")),
    "a token of the caller's for ACS (Teams)": lambda f: f.azure.entra.teams_token("alex"),
    "an access token of ACS itself": lambda f: f.acs_token,
    "an app-only token": lambda f: f.azure.entra.app_only_token(),
    "an app-only token, v1": lambda f: f.azure.entra.app_only_token(version=1),
    "an app-only token with the scope's name as role": lambda f: f.azure.entra.app_only_token(roles=["access_as_user"]),
    "an app-only token by idtyp": claims(idtyp="app"),
    "an idtyp that nobody knows": claims(idtyp="device"),
    "an id token by its use": claims(token_use="id"),
    "an id token by its type": claims(typ="ID"),
    "a refresh token": claims(typ="Refresh"),
    "an offline token": claims(typ="Offline"),
    "a logout token": claims(typ="Logout"),
    "a logout token by its event": claims(events={"http://schemas.openid.net/event/backchannel-logout": {}}),
    "a refresh token by SimpleJWT's claim": claims(token_type="refresh"),
    "an id token by ForgeRock's claim": claims(tokenName="id_token"),
    "a token bound to a key (DPoP)": claims(cnf={"jkt": "x"}),
    "a token bound to a certificate": claims(cnf={"x5t#S256": "x"}),
    "a token bound to a key that says nothing of it": claims(cnf={}),
    "a token bound to a key, by text": claims(cnf="x"),
    "a token that says that it is DPoP": claims(typ="DPoP"),
    "a user without an id": claims(oid="00000000-0000-0000-0000-000000000000"),
    "a managed identity's token": lambda f: f.azure.entra.managed_identity_token(f"api://{API.client_id}"),
    "a user of another tenant": lambda f: f.token("nestor"),
    "a user of another tenant, v1": lambda f: f.token("nestor", version=1),
    "another tenant's user who is a guest here, with the token of his own tenant": lambda f: f.genuine(
        claims=f.claims(tid=OTHER, iss=f"{f.azure.entra.url}/{OTHER}/v2.0", oid=USERS["guest"].object_id)
    ),
    "a personal account": lambda f: f.genuine(
        claims=f.claims(tid=PERSONAL_ACCOUNTS_TENANT_ID, iss=f"{f.azure.entra.url}/{PERSONAL_ACCOUNTS_TENANT_ID}/v2.0")
    ),
}

ISSUERS: dict[str, Token] = {
    "no issuer": claims(iss=None),
    "an empty issuer": claims(iss=""),
    "an issuer that is a list": lambda f: f.genuine(claims=f.claims(iss=[f.claims()["iss"]])),
    "v2 issuer with a slash": issuer(f"{{entra}}/{HOME}/v2.0/"),
    "v1 issuer without its slash": issuer(f"https://sts.windows.net/{HOME}"),
    "v1 issuer with two slashes": issuer(f"https://sts.windows.net/{HOME}//"),
    "issuer in upper case": lambda f: f.genuine(claims=f.claims(iss=f.claims()["iss"].upper())),
    "issuer with its tenant in upper case": issuer(f"{{entra}}/{HOME.upper()}/v2.0"),
    "issuer and tenant in upper case": issuer(f"{{entra}}/{HOME.upper()}/v2.0", tid=HOME.upper()),
    "issuer over plain HTTP": lambda f: f.genuine(claims=f.claims(iss=f.claims()["iss"].replace("https:", "http:"))),
    "issuer of another tenant": issuer(f"{{entra}}/{OTHER}/v2.0"),
    "tenant of another issuer": claims(tid=OTHER),
    "issuer common": issuer("{entra}/common/v2.0"),
    "issuer that is the template itself": issuer("{entra}/{tenantid}/v2.0"),
    "issuer and tenant that are the template itself": issuer("{entra}/{tenantid}/v2.0", tid="{tenantid}"),
    "v1 issuer at the v2 host": issuer(f"{{entra}}/{HOME}/"),
    "v2 issuer at the v1 host": issuer(f"https://sts.windows.net/{HOME}/v2.0"),
    "issuer with another host": issuer(f"https://evil.example/{HOME}/v2.0"),
    "issuer with our host as user name": lambda f: f.genuine(
        claims=f.claims(iss=f"{f.azure.entra.url}@evil.example/{HOME}/v2.0")
    ),
    "issuer that begins like ours": issuer(f"{{entra}}.evil.example/{HOME}/v2.0"),
    "issuer that goes on": issuer(f"{{entra}}/{HOME}/v2.0/../../{OTHER}/v2.0"),
    "issuer with a NUL": issuer(f"{{entra}}/{HOME}/v2.0\0"),
    "issuer with a blank": issuer(f" {{entra}}/{HOME}/v2.0"),
    "v1 issuer with Cyrillic letters": issuer(f"https://sts.wind\u043ews.net/{HOME}/"),
    "v1 claims with v2 issuer of another tenant": issuer(f"{{entra}}/{OTHER}/v2.0", ver="1.0"),
}

FORMS: dict[str, Token] = {
    "one part": lambda f: f.token().split(".")[0],
    "two parts": lambda f: f.token().rpartition(".")[0],
    "an empty signature": reshaped(lambda a, b, _: f"{a}.{b}."),
    "an empty payload": reshaped(lambda a, _, c: f"{a}..{c}"),
    "an empty header": reshaped(lambda _, b, c: f".{b}.{c}"),
    "dots alone": lambda _: "..",
    "four parts": reshaped(lambda a, b, c: f"{a}.{b}.{c}.{c}"),
    "a dot in front": lambda f: f".{f.token()}",
    "a dot behind": lambda f: f"{f.token()}.",
    "parts in another order": reshaped(lambda a, b, c: f"{b}.{a}.{c}"),
    "trailing bytes": lambda f: f.token() + "AAAA",
    "a trailing letter": lambda f: f.token() + "A",
    "a signature cut short": lambda f: f.token()[:-6],
    "a signature with other bits": lambda f: f.token()[:-8] + "AAAAAAAA",
    "a signature with other unused bits": lambda f: with_other_unused_bits(f.token()),
    "a signature with padding": lambda f: f.token() + "==",
    "padding in every part": reshaped(lambda *parts: ".".join(part + "=" * (-len(part) % 4) for part in parts)),
    "the standard alphabet": with_standard_alphabet,
    "upper case": lambda f: f.token().upper(),
    "backwards": lambda f: f.token()[::-1],
    "garbage": lambda _: "hello",
    "16 KiB of letters": lambda _: "A" * 16 * 1024,
    "63 KiB of letters": lambda _: "A" * 63 * 1024,
    "16 000 dots": lambda _: "." * 16_000,
}

NO_TOKENS: dict[str, Token] = {
    "a blank inside": reshaped(lambda a, b, c: f"{a}.{b} .{c}"),
    "a line's end inside, encoded": lambda f: f.token().replace(".", "%0A.", 1),
    "percent-encoded dots": lambda f: f.token().replace(".", "%2E"),
    "quotation marks": lambda f: f'"{f.token()}"',
    "full-width letters": lambda f: f.token().replace("A", "\uff21", 1),
    "a zero-width blank": lambda f: f.token() + "\u200b",
    "the JSON form of a signature": reshaped(
        lambda a, b, c: json.dumps({"protected": a, "payload": b, "signature": c}, separators=(",", ":"))
    ),
    "two tokens joined by a comma": lambda f: f"{f.token()},{f.token()}",
    "two tokens joined by a semicolon": lambda f: f"{f.token()};{f.token()}",
}


def jwt_id_token(forger: Forger, audience: str) -> str:
    """What a client gets besides an access token: no scope, but a nonce."""
    return forger.genuine(claims=forger.claims(aud=audience, scp=None, azp=None, nonce="678910"))


def with_other_unused_bits(token: str) -> str:
    """The same signature written in another way: the last letter of 256 bytes has four bits that mean nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) ^ 1]


def headers(*lines: Callable[[Forger], str | bytes] | str | bytes, **how: Any) -> Request:
    """A request with these header lines; those that need a token are made with the forger."""
    return lambda forger: http(*(line(forger) if callable(line) else line for line in lines), **how)


def good(forger: Forger) -> str:
    """The header line that a good caller sends."""
    return bearer(forger.token())


def line(text: str) -> Callable[[Forger], str]:
    """A header line in which `{token}` stands for a good token."""
    return lambda forger: text.replace("{token}", forger.token())


CREDENTIALS: dict[str, Request] = {
    "no credentials": headers(),
    "a token without a scheme": headers(line("Authorization: {token}")),
    "Basic and Bearer joined by a comma": headers(line("Authorization: Basic YTpi, Bearer {token}")),
    "Basic": headers("Authorization: Basic YTpi"),
    "Basic with a token": headers(
        lambda f: f"Authorization: Basic {base64.b64encode(f':{f.token()}'.encode()).decode()}"
    ),
    "Basic, the token as it is": headers(line("Authorization: Basic {token}")),
    "Digest": headers('Authorization: Digest username="alex", realm="api", nonce="1", uri="/api/user", response="0"'),
    "Negotiate": headers(line("Authorization: Negotiate {token}")),
    "DPoP": headers(line("Authorization: DPoP {token}")),
    "PoP": headers(line("Authorization: PoP {token}")),
    "HMAC": headers("Authorization: HMAC-SHA256 SignedHeaders=x-ms-date;host&Signature=AAAA"),
    "a scheme that begins like Bearer": headers(line("Authorization: BearerX {token}")),
    "X-Authorization": headers(line("X-Authorization: Bearer {token}")),
    "Proxy-Authorization": headers(line("Proxy-Authorization: Bearer {token}")),
    "authorization with an underscore": headers(line("HTTP_AUTHORIZATION: Bearer {token}")),
    "the token in the query": lambda f: http(target=f"/api/user?access_token={f.token()}"),
    "the token in a fragment": lambda f: http(target=f"/api/user?#access_token={f.token()}"),
    "the token in a form": lambda f: http(
        "Content-Type: application/x-www-form-urlencoded",
        f"Content-Length: {len(f.token()) + 13}",
        method="POST",
        body=f"access_token={f.token()}".encode(),
    ),
    "the token in a cookie": headers(line("Cookie: access_token={token}; Authorization={token}")),
    "the token of Teams alone": headers(lambda f: f"teams-user-aad-token: {f.azure.entra.teams_token('alex')}"),
    "the token of Teams in its place and nothing else": lambda f: http(
        f"teams-user-aad-token: {f.azure.entra.teams_token('alex')}", target="/api/token/teams"
    ),
    "the headers of a platform that signs users in": headers(
        f"X-MS-CLIENT-PRINCIPAL-ID: {ALEX.object_id}",
        f"X-MS-CLIENT-PRINCIPAL-NAME: {ALEX.username}",
        f"X-MS-CLIENT-PRINCIPAL: {base64.b64encode(json.dumps({'userId': ALEX.object_id}).encode()).decode()}",
        line("X-MS-TOKEN-AAD-ACCESS-TOKEN: {token}"),
    ),
    "the headers of a proxy that signs users in": headers(
        f"X-Forwarded-User: {ALEX.username}",
        f"X-Forwarded-Email: {ALEX.username}",
        f"X-Auth-Request-User: {ALEX.object_id}",
        f"X-Remote-User: {ALEX.object_id}",
        line("X-Forwarded-Access-Token: {token}"),
    ),
    "a client certificate that a proxy claims to have seen": headers(
        f"X-Forwarded-Client-Cert: Subject={ALEX.username}", "X-SSL-Client-Verify: SUCCESS"
    ),
    "another address that needs no token": headers(
        "X-Original-URL: /health/live", "X-Rewrite-URL: /health/live", "X-Forwarded-Prefix: /health"
    ),
    "another method": headers("X-HTTP-Method-Override: OPTIONS", "X-HTTP-Method: OPTIONS", "X-Method-Override: HEAD"),
    "another method in the query": headers(target="/api/user?_method=OPTIONS"),
    "an inside address": headers(
        "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1", "Forwarded: for=127.0.0.1;host=localhost;proto=https"
    ),
    "a pre-flight's headers on a real request": headers(
        "Origin: https://evil.example", "Access-Control-Request-Method: GET"
    ),
    "a debugging cookie": headers("Cookie: __wzd=1; debug=1", target="/api/user?__debugger__=yes&cmd=resource"),
}

MALFORMED_CREDENTIALS: dict[str, Request] = {
    "an empty header": headers("Authorization:"),
    "a scheme alone": headers("Authorization: Bearer"),
    "a scheme and a blank": headers("Authorization: Bearer "),
    "two headers, the same token": headers(good, good),
    "two headers, a good token first": headers(good, "Authorization: Bearer x"),
    "two headers, a good token last": headers("Authorization: Bearer x", good),
    "two headers of two users": headers(good, lambda f: bearer(f.token("megan"))),
    "two headers, Basic and Bearer": headers("Authorization: Basic YTpi", good),
    "two credentials joined by a comma": headers(line("Authorization: Bearer {token}, Bearer {token}")),
    "a scheme with a colon": headers(line("Authorization: Bearer:{token}")),
    "a scheme with a comma": headers(line("Authorization: Bearer, {token}")),
    "a tab instead of the blank": headers(line("Authorization: Bearer\t{token}")),
    "a blank and a tab": headers(line("Authorization: Bearer \t{token}")),
    "a no-break space instead of the blank": headers(lambda f: b"Authorization: Bearer\xa0" + f.token().encode()),
    "something behind the token": headers(line("Authorization: Bearer {token} extra")),
    "a parameter behind the token": headers(line('Authorization: Bearer {token}, realm="api"')),
    "the token as a parameter": headers(line('Authorization: Bearer token="{token}"')),
    "scheme twice": headers(line("Authorization: Bearer Bearer {token}")),
    "Latin-1 behind the token": headers(lambda f: good(f).encode() + b"\xe9"),
    "a token folded in the middle": headers(lambda f: good(f).replace(".", ".\r\n ", 1)),
}

NOT_FOUND, NOT_ALLOWED = (404, "not_found"), (405, "method_not_allowed")
BY_THE_HTTP_LAYER = (400, "bad_request")

ROUTES: dict[str, tuple[Request, tuple[int, str | None]]] = {
    "a slash behind": (headers(target="/api/user/"), (401, "invalid_token")),
    "two slashes in front": (headers(target="//api/user"), (401, "invalid_token")),
    "two slashes and a host in front": (headers(target="//evil.example/api/user"), NOT_FOUND),
    "two slashes inside": (headers(target="/api//user"), NOT_FOUND),
    "a path that turns back": (headers(target="/api/user/../token"), NOT_FOUND),
    "a path that turns back from an open route": (headers(target="/health/live/../../api/user"), NOT_FOUND),
    "the same, encoded": (headers(target="/health/live/%2e%2e/%2e%2e/api/user"), NOT_FOUND),
    "the same, slashes encoded": (headers(target="/health/live%2f..%2f..%2fapi%2fuser"), NOT_FOUND),
    "an encoded letter": (headers(target="/api/%75ser"), (401, "invalid_token")),
    "an encoded slash": (headers(target="/api%2fuser"), (401, "invalid_token")),
    "a twice encoded letter": (headers(target="/api/%2575ser"), NOT_FOUND),
    "an overlong encoding": (headers(target="/api/%c1%b5ser"), NOT_FOUND),
    "upper case": (headers(target="/API/USER"), NOT_FOUND),
    "a path parameter": (headers(target="/api/user;a=b"), NOT_FOUND),
    "a NUL behind": (headers(target="/api/user%00"), NOT_FOUND),
    "a blank behind": (headers(target="/api/user%20"), NOT_FOUND),
    "a line's end behind": (headers(target="/api/user%0d%0aX-Injected:%201"), NOT_FOUND),
    "a file name behind": (headers(target="/api/user.json"), NOT_FOUND),
    "a backslash": (headers(target="/api\\user"), NOT_FOUND),
    "files beside the page's": (headers(target="/docs/..%2f..%2f..%2fsettings.py"), NOT_FOUND),
    "files beside the page's, plain": (headers(target="/docs/../../etc/passwd"), NOT_FOUND),
    "another host in the target": (headers(target="http://evil.example/api/user"), (401, "invalid_token")),
    "an open route's host in the target": (headers(target="http://evil.example/health/live/api/user"), NOT_FOUND),
    "another host": (
        lambda f: b"GET /api/user HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
        (401, "invalid_token"),
    ),
    "a host alone": (headers(target="evil.example"), NOT_FOUND),
    "a broken address": (headers(target="http://[evil.example/api/user"), NOT_FOUND),
    "a path without its slash": (headers(target="api/user"), (401, "invalid_token")),
    "the whole server": (headers(target="*", method="OPTIONS"), NOT_FOUND),
    "bytes beyond ASCII": (
        lambda _: b"GET /api/us\xe9r HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
        BY_THE_HTTP_LAYER,
    ),
    "HEAD": (headers(method="HEAD"), (401, None)),
    "PUT": (headers(method="PUT"), NOT_ALLOWED),
    "PATCH": (headers(method="PATCH"), NOT_ALLOWED),
    "TRACE": (headers(method="TRACE"), NOT_ALLOWED),
    "CONNECT": (headers(method="CONNECT"), NOT_ALLOWED),
    "PROPFIND": (headers(method="PROPFIND"), NOT_ALLOWED),
    "a method of our own making": (headers(method="JEFF"), NOT_ALLOWED),
    "get in lower case": (headers(method="get"), (401, "invalid_token")),
    "PUT that claims to be GET": (headers(good, "X-HTTP-Method-Override: GET", method="PUT"), NOT_ALLOWED),
    "a WebSocket": (
        lambda f: (
            b"GET /api/user HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ),
        NOT_ALLOWED,
    ),
}

CHUNKED = "Transfer-Encoding: chunked"
PIPELINED = b"GET /api/token HTTP/1.1\r\nHost: localhost\r\n\r\n"

PROTOCOL: dict[str, tuple[Request, tuple[int, str | None]]] = {
    # The limit of 64 KiB is looked at between two reads of up to 64 KiB each.
    "headers of 200 KiB": (headers("X-Filler: " + "x" * 200 * 1024), (431, "request_header_fields_too_large")),
    "a token of 200 KiB": (lambda f: http(bearer("A" * 200 * 1024)), (431, "request_header_fields_too_large")),
    "a target of 200 KiB": (headers(target="/api/user?" + "x" * 200 * 1024), (431, "request_header_fields_too_large")),
    "a thousand headers": (headers(*(f"X-{n}: {n}" for n in range(1000))), (401, "invalid_token")),
    "two lengths": (headers("Content-Length: 1", "Content-Length: 2", method="POST", body=b"xx"), BY_THE_HTTP_LAYER),
    "two lengths in one": (headers("Content-Length: 1, 2", method="POST", body=b"xx"), BY_THE_HTTP_LAYER),
    "a negative length": (headers("Content-Length: -1", method="POST"), BY_THE_HTTP_LAYER),
    "a length with a sign": (headers("Content-Length: +2", method="POST", body=b"xx"), BY_THE_HTTP_LAYER),
    "a length in hexadecimal": (headers("Content-Length: 0x2", method="POST", body=b"xx"), BY_THE_HTTP_LAYER),
    "a length of 30 digits": (headers("Content-Length: " + "9" * 30, method="POST"), (400, "bad_request")),
    "a body that is too large": (
        headers("Content-Length: 20000", method="POST", body=b"x" * 20_000),
        (413, "request_entity_too_large"),
    ),
    "a body that claims to be too large": (
        headers("Content-Length: 1000000000", method="POST"),
        (413, "request_entity_too_large"),
    ),
    "a chunked body that is too large": (
        headers(CHUNKED, method="POST", body=b"4e20\r\n" + b"x" * 20_000 + b"\r\n0\r\n\r\n"),
        (401, "invalid_token"),
    ),
    "a body that never comes": (headers("Content-Length: 2", method="POST"), (401, "invalid_token")),
    "a chunk without end": (
        headers(CHUNKED, method="POST", body=b"ffffffffffffffffffff\r\nx"),
        (401, "invalid_token"),
    ),
    "a chunk of no size": (headers(CHUNKED, method="POST", body=b"zz\r\nx\r\n0\r\n\r\n"), BY_THE_HTTP_LAYER),
    "a length and chunks": (
        headers(CHUNKED, "Content-Length: 5", method="POST", body=b"0\r\n\r\n" + PIPELINED),
        BY_THE_HTTP_LAYER,
    ),
    "a length and chunks, the other way round": (
        headers("Content-Length: 60", CHUNKED, method="POST", body=b"0\r\n\r\n" + PIPELINED),
        BY_THE_HTTP_LAYER,
    ),
    "an unknown transfer encoding": (headers("Transfer-Encoding: xchunked", method="POST"), (501, "not_implemented")),
    "two transfer encodings": (headers("Transfer-Encoding: gzip, chunked", method="POST"), (501, "not_implemented")),
    "chunks with a tab": (headers("Transfer-Encoding:\tchunked\x0b", method="POST"), (400, "bad_request")),
    "chunks, a blank before the colon": (headers("Transfer-Encoding : chunked", method="POST"), (400, "bad_request")),
    "a blank before the colon": (headers(line("Authorization : Bearer {token}")), BY_THE_HTTP_LAYER),
    "a NUL behind the token": (headers(lambda f: good(f) + "\0"), BY_THE_HTTP_LAYER),
    "a NUL in the header's name": (headers(lambda f: good(f).replace(":", "\0:", 1)), BY_THE_HTTP_LAYER),
    "a carriage return in the token": (headers(lambda f: good(f).replace(".", "\r.", 1)), BY_THE_HTTP_LAYER),
    "a header without a colon": (headers("Authorization"), BY_THE_HTTP_LAYER),
    "no host": (lambda f: b"GET /api/user HTTP/1.1\r\n" + good(f).encode() + b"\r\n\r\n", BY_THE_HTTP_LAYER),
    "two hosts": (headers("Host: evil.example", good), BY_THE_HTTP_LAYER),
    "HTTP/1.0": (headers(version="HTTP/1.0"), (401, "invalid_token")),
    "HTTP/3.7": (headers(version="HTTP/3.7"), (401, "invalid_token")),
    "HTTP/0.9": (lambda _: b"GET /api/user\r\n\r\n", BY_THE_HTTP_LAYER),
    "a request that begins with a blank": (lambda f: b" " + http(good(f)), BY_THE_HTTP_LAYER),
    "two blanks in the request line": (headers(good, method="GET "), BY_THE_HTTP_LAYER),
    "an expectation": (
        headers("Expect: 100-continue", "Content-Length: 2", method="POST", body=b"{}"),
        (401, "invalid_token"),
    ),
    "TLS on the plain port": (
        lambda _: bytes.fromhex("16030100c8010000c40303") + bytes(range(200)) + b"\r\n\r\n",
        BY_THE_HTTP_LAYER,
    ),
    "noise": (lambda _: bytes(range(1, 256)) + b"\r\n\r\n", BY_THE_HTTP_LAYER),
}


def scoped(text: str) -> Token:
    """A genuine token with other scopes; `{scope}` stands for the one that the door asks for."""
    return lambda forger: forger.genuine(claims=forger.claims(scp=text.format(scope=forger.scope)))


SCOPES: dict[str, Token] = {
    "another scope": scoped("other_scope"),
    "no scope": scoped(""),
    "the scope in another case": lambda f: f.genuine(claims=f.claims(scp=f.scope.title())),
    "a scope that begins like ours": scoped("{scope}.read"),
    "the scope joined by commas": scoped("openid,{scope}"),
    "the scope with its URI": scoped(f"api://{API.client_id}/{{scope}}"),
    "the scope joined by a no-break space": scoped("openid\u00a0{scope}"),
}


REASONS: dict[str, str] = {
    "algorithm": "algorithm",
    "key": "key_unknown",
    "header": "malformed",
    "time": "malformed",
    "claim": "malformed",
    "kind": "application_token",
    "issuer": "issuer",
    "form": "malformed",
    "scope": "scope",
    "credentials": "missing",
}
"""Why the tokens of a group are refused, apart from those below."""

OTHER_REASONS: dict[str, tuple[str, ...]] = {
    "proof_missing": (
        "kind: a token bound to a key (DPoP)",
        "kind: a token bound to a certificate",
        "kind: a token bound to a key that says nothing of it",
        "kind: a token bound to a key, by text",
        "kind: a token that says that it is DPoP",
    ),
    "signature": (
        "algorithm: RS256 in the header, PS256 in truth",
        "algorithm: RS256 in the header, SHA-1 in truth",
        "algorithm: RS256 with a signature of zeros",
        "algorithm: RS256 with a signature of one",
        "key: a stranger's signature",
        "key: a stranger's key in the header",
        "key: a stranger's certificate in the header",
        "key: jku at the attacker's server",
        "key: x5u at the attacker's server",
        "key: a key of personal accounts under the id of an organization's",
        "claim: a changed object id",
        "claim: the payload of another user's token",
        "form: an empty signature",
        "form: an empty payload",
        "form: trailing bytes",
        "form: a signature cut short",
        "form: a trailing letter",
        "form: a signature with other bits",
    ),
    "malformed": (
        "algorithm: two algorithms",
        "key: two key ids",
    ),
    "type": (
        "header: typ of a logout token, in full",
        "header: typ of an event",
        "header: typ of a DPoP proof",
        "header: typ that is empty",
        "header: typ of another media type",
        "header: typ of an id token",
        "header: typ of a logout token",
        "header: typ of a JWE",
        "header: typ that is a list",
        "header: cty: a token in a token",
        "header: crit that names exp",
        "header: crit that is empty",
        "header: crit that names a header that is there",
        "header: b64 false",
        "header: b64 false and critical",
        "header: b64 true and critical",
        "header: zip, compressed",
        "header: zip, not compressed",
        "header: a compressed bomb",
    ),
    "algorithm": (
        "header: a header that is empty",
        "form: parts in another order",
    ),
    "key_unknown": (
        "header: a header with a lone surrogate",
        "kind: an access token of ACS itself",
    ),
    "expired": (
        "time: expired",
        "time: expired beyond the leeway",
        "time: an expiry of zero",
        "time: a negative expiry",
        "time: an expiry that is true",
    ),
    "not_yet_valid": (
        "time: issued in the future",
        "time: not valid yet",
    ),
    "subject": (
        "kind: a user without an id",
        "claim: no object id",
        "claim: an object id that is a number",
        "claim: an object id that is a list",
        "claim: an object id that is null",
        "claim: an object id that is no GUID",
        "claim: an object id with a line break",
        "claim: an object id in full-width digits",
        "claim: an object id that climbs",
    ),
    "tenant": (
        "claim: no tenant",
        "claim: a tenant that is a list",
        "claim: a tenant by its domain",
        "claim: the tenant common",
        "kind: a user of another tenant",
        "kind: a user of another tenant, v1",
        "kind: another tenant's user who is a guest here, with the token of his own tenant",
        "kind: a personal account",
        "issuer: tenant of another issuer",
        "issuer: issuer and tenant that are the template itself",
    ),
    "issuer": ("claim: a tenant in upper case",),
    "audience": (
        "claim: an audience that is a list",
        "claim: this API among other audiences",
        "claim: an audience that is an object",
        "claim: no audience",
        "claim: an empty audience",
        "claim: another audience",
        "claim: the client as audience",
        "claim: the audience in upper case",
        "claim: the audience with a slash",
        "claim: an audience that begins like ours",
        "kind: an id token",
        "kind: a token for Microsoft Graph",
        "kind: a token of the caller's for ACS (Teams)",
    ),
    "client": ("claim: a client that is a number",),
    "not_an_access_token": (
        "kind: an id token by its use",
        "kind: an id token by its type",
        "kind: a refresh token",
        "kind: an offline token",
        "kind: a logout token",
        "kind: a logout token by its event",
        "kind: a refresh token by SimpleJWT's claim",
        "kind: an id token by ForgeRock's claim",
        "kind: an id token for this API",
    ),
}
"""Attacks that are refused for another reason than most of their group."""


def reason(name: str) -> str:
    """Why the token of this attack is refused."""
    other = [reason for reason, names in OTHER_REASONS.items() if name in names]
    return other[0] if other else REASONS[name.partition(":")[0]]


def of_group(group: str, requests: Mapping[str, Request], *answer: Any) -> tuple[Attack, ...]:
    """The attacks of a group, all with this answer: status and error, by default those of a token that is refused."""
    status, error = answer or (401, "invalid_token")
    names = {f"{group}: {name}": request for name, request in requests.items()}
    return tuple(Attack(name, request, status, error, reason(name)) for name, request in names.items())


def sent(tokens: Mapping[str, Token]) -> dict[str, Request]:
    """Each token as anybody would send it."""
    return {name: as_request(make) for name, make in tokens.items()}


MALFORMED = (400, "invalid_request")

TOKENS: dict[str, Token] = {
    f"{group}: {name}": make
    for group, tokens in {
        "algorithm": ALGORITHMS,
        "key": KEYS,
        "header": HEADERS,
        "time": TIMES,
        "claim": CLAIMS,
        "kind": KINDS,
        "issuer": ISSUERS,
        "form": FORMS,
        "scope": SCOPES,
    }.items()
    for name, make in tokens.items()
}
"""The hostile tokens themselves, each by the name of its attack."""


def sign_out(make: Token) -> Request:
    """A sign-out with this token."""
    return lambda forger: http(bearer(make(forger)), method="DELETE", target="/api/token")


RESOLVE = "/api/users/resolve"
RESOLVE_SCOPE = API.scopes[1]


def question(*lines: str | bytes, body: bytes | None = None) -> bytes:
    """A question for Alex's identity, or with another body."""
    asked = json.dumps({"userIds": [ALEX.object_id]}).encode() if body is None else body
    framing = ("Content-Type: application/json", f"Content-Length: {len(asked)}")
    return http(*lines, *framing, method="POST", target=RESOLVE, body=asked)


def asked_with(make: Token) -> Request:
    """A question with this token."""
    return lambda forger: question(bearer(make(forger)))


def asking(body: bytes) -> Request:
    """A body of somebody who may ask."""
    return lambda forger: question(bearer(forger.may_resolve()), body=body)


NO_SCOPE_TO_RESOLVE: dict[str, Token] = {
    "no scope to ask": lambda f: f.token(),
    "only the scope to ask": lambda f: f.token(scope=RESOLVE_SCOPE),
    "the scope to ask in another case": lambda f: f.token(scope=f"{f.scope} {RESOLVE_SCOPE.upper()}"),
    "a scope that begins like it": lambda f: f.token(scope=f"{f.scope} {RESOLVE_SCOPE}.all"),
    "the scopes joined by a comma": scoped(f"{{scope}},{RESOLVE_SCOPE}"),
    "the scope to ask as a role": lambda f: f.token(roles=[RESOLVE_SCOPE]),
    "the scope to ask in another claim": lambda f: f.token(scope_granted=RESOLVE_SCOPE, scopes=[RESOLVE_SCOPE]),
}

QUESTIONS: dict[str, bytes] = {
    "no body": b"",
    "a list": json.dumps([ALEX.object_id]).encode(),
    "a user's name": json.dumps({"userIds": [ALEX.username]}).encode(),
    "everybody": json.dumps({"userIds": ["*"]}).encode(),
    "SQL": json.dumps({"userIds": ["' OR '1'='1"]}).encode(),
    "a question of the store": json.dumps({"userIds": {"$ne": None}}).encode(),
    "another tenant before the id": json.dumps({"userIds": [f"{OTHER}:{USERS['nestor'].object_id}"]}).encode(),
    "another tenant besides": json.dumps({"userIds": [ALEX.object_id], "tenantId": OTHER}).encode(),
    "the member twice": b'{"userIds":[],"userIds":["' + ALEX.object_id.encode() + b'"]}',
    "an id with a line's end": json.dumps({"userIds": [f"{ALEX.object_id}\n"]}).encode(),
    "an id in full-width digits": json.dumps({"userIds": ["\uff41" + ALEX.object_id[1:]]}).encode(),
    "101 users": json.dumps({"userIds": [ALEX.object_id] * 101}).encode(),
    "deep nesting": b'{"userIds":' + b"[" * DEEP,
    "a number of 10,000 digits": b'{"userIds":[' + b"9" * 10_000 + b"]}",
    "UTF-16": json.dumps({"userIds": [ALEX.object_id]}).encode("utf-16"),
}

RESOLVE_ATTACKS: tuple[Attack, ...] = (
    *(
        Attack(
            f"resolve: {name}",
            asked_with(make),
            *((403, "insufficient_scope") if name.startswith("scope:") else (401, "invalid_token")),
            reason(name),
        )
        for name, make in list(TOKENS.items())[3::8]
    ),
    *(
        Attack(f"resolve: {name}", asked_with(make), 403, "insufficient_scope", "scope")
        for name, make in NO_SCOPE_TO_RESOLVE.items()
    ),
    *(Attack(f"resolve: {name}", asking(body), 400, "invalid_body") for name, body in QUESTIONS.items()),
    Attack("resolve: no token", lambda _: question(), reason="missing"),
    Attack(
        "resolve: a form",
        lambda f: http(
            bearer(f.may_resolve()),
            "Content-Type: application/x-www-form-urlencoded",
            "Content-Length: 7",
            method="POST",
            target=RESOLVE,
            body=b"a=b&c=d",
        ),
        415,
        "unsupported_media_type",
    ),
    Attack("resolve: in the query", headers(good, target=f"{RESOLVE}?userIds={ALEX.object_id}"), *NOT_ALLOWED),
    Attack(
        "resolve: a body that never comes, without a token",
        headers("Content-Type: application/json", "Content-Length: 2", method="POST", target=RESOLVE),
        reason="missing",
    ),
    Attack(
        "resolve: a body that never comes, without the scope",
        headers(good, "Content-Type: application/json", "Content-Length: 2", method="POST", target=RESOLVE),
        403,
        "insufficient_scope",
        "scope",
    ),
    Attack(
        "resolve: a chunked body that is too large",
        lambda f: http(
            bearer(f.may_resolve()),
            "Content-Type: application/json",
            CHUNKED,
            method="POST",
            target=RESOLVE,
            body=b"4e20\r\n" + b" " * 20_000 + b"\r\n0\r\n\r\n",
        ),
        413,
        "request_entity_too_large",
    ),
    Attack("resolve: a slash behind", headers(method="POST", target=f"{RESOLVE}/"), reason="missing"),
)

ATTACKS: tuple[Attack, ...] = (
    *RESOLVE_ATTACKS,
    *of_group("algorithm", sent(ALGORITHMS)),
    *of_group("key", sent(KEYS)),
    *of_group("header", sent(HEADERS)),
    *of_group("time", sent(TIMES)),
    *of_group("claim", sent(CLAIMS)),
    *of_group("kind", sent(KINDS)),
    *of_group("issuer", sent(ISSUERS)),
    *of_group("form", sent(FORMS)),
    *of_group("form", sent(NO_TOKENS), *MALFORMED),
    *of_group("scope", sent(SCOPES), 403, "insufficient_scope"),
    *of_group("credentials", CREDENTIALS),
    *(
        Attack(f"credentials: {name}", request, *MALFORMED, reason="malformed")
        for name, request in MALFORMED_CREDENTIALS.items()
    ),
    *(
        Attack(f"{group}: {name}", request, *answer, reason="missing" if answer[0] == 401 else None)
        for group, requests in {"route": ROUTES, "protocol": PROTOCOL}.items()
        for name, (request, answer) in requests.items()
    ),
    *(
        Attack(
            f"sign-out: {name}",
            sign_out(make),
            *((403, "insufficient_scope") if name.startswith("scope:") else (401, "invalid_token")),
            reason(name),
        )
        for name, make in list(TOKENS.items())[::8]
    ),
    Attack(
        "sign-out: the token in a cookie",
        headers(line("Cookie: access_token={token}"), method="DELETE", target="/api/token"),
        401,
        "invalid_token",
        reason="missing",
    ),
    Attack("sign-out: by POST", headers(good, method="POST", target="/api/token"), *NOT_ALLOWED),
    Attack("sign-out: by an older name", headers(good, method="DELETE", target="/getToken"), *NOT_ALLOWED),
)

ALLOWED_AT_OIDC = (
    "time: an expiry with a fraction",
    "claim: scopes that are a list",
    "claim: capabilities that are text",
    "claim: an object id that is no GUID",
    "claim: an object id in full-width digits",
    "claim: an object id that climbs",
    "claim: no tenant",
    "claim: a tenant that is a list",
    "claim: a tenant by its domain",
    "claim: the tenant common",
    "claim: a tenant in upper case",
    "issuer: tenant of another issuer",
    "claim: an audience that is a list",
    "claim: this API among other audiences",
    "claim: a client that is a number",
    "kind: a user of another tenant",
    "kind: a user of another tenant, v1",
)
"""What only Entra ID never writes: another issuer's users may be called anything, and tenants are none of its."""

NAMING_NO_ISSUER = (
    "header: a token in a token",
    "time: an expiry of Infinity",
    "time: an expiry of NaN",
    "time: an expiry of 6000 digits",
    "time: two expiries",
    "time: an issue time of NaN",
    "time: a start of Infinity",
    "claim: two object ids",
    "claim: two scopes",
    "claim: two audiences as members",
    "claim: an unknown claim twice",
    "claim: a claim of NaN",
    "claim: claims that are a list",
    "claim: claims that are text",
    "claim: claims that are null",
    "claim: no claims",
    "claim: claims that are no JSON",
    "claim: claims that are no UTF-8",
    "claim: claims that nest deeply",
    "claim: claims of 101 levels",
    "form: an empty payload",
    "kind: another tenant's user who is a guest here, with the token of his own tenant",
    "kind: a personal account",
)
"""What is signed by another issuer's key and does not name that issuer, as do those of the group `issuer`.

The first door judges it, and knows no such key.
"""

Crossing = Callable[[Forger, Forger], str]
"""A token, by what there is at this door and at the other one."""


def named(forger: Forger) -> str:
    """The issuer of this door's tokens."""
    return str(forger.claims()["iss"])


def crossed_parts(first: Forger, second: Forger, third: Forger) -> str:
    """The header of one token, the payload and the signature of others."""
    return ".".join(forger.token().split(".")[number] for number, forger in enumerate((first, second, third)))


def by_secret(key: Forger) -> Sign:
    """HS256 with the public key of a door as the secret."""
    return lambda text: hmac.new(key.public(PEM, SPKI), text, hashlib.sha256).digest()


CROSSINGS: dict[str, tuple[Crossing, str, str]] = {
    "the other's claims, signed by this key": (
        lambda f, o: compact(f.header(), o.claims(), rsa_signature(f.key)),
        "signature",
        "key_unknown",
    ),
    "the other's claims, signed by this key under the other's id": (
        lambda f, o: compact(o.header(), o.claims(), rsa_signature(f.key)),
        "signature",
        "signature",
    ),
    "signed by the other's key under the id that both publish": (
        lambda f, o: compact(f.header(kid=f.azure.entra.keys.current.kid), f.claims(), rsa_signature(o.key)),
        "signature",
        "signature",
    ),
    "signed by the other's key without an id": (
        lambda f, o: compact(f.header(kid=None), f.claims(), rsa_signature(o.key)),
        "key_unknown",
        "key_unknown",
    ),
    "the other's key in the header": (
        lambda f, o: compact(
            f.header(jwk=json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(o.key.public_key()))),
            f.claims(),
            rsa_signature(o.key),
        ),
        "signature",
        "signature",
    ),
    "the other's audience": (lambda f, o: f.genuine(claims=f.claims(aud=o.audience)), "audience", "audience"),
    "the other's claims with this issuer": (
        lambda f, o: f.genuine(claims=o.claims(iss=named(f))),
        "audience",
        "audience",
    ),
    "the other's scope": (lambda f, o: f.genuine(claims=f.claims(scp=o.scope)), "scope", "scope"),
    "HS256 with the other's public key as secret": (
        lambda f, o: compact(f.header(alg="HS256"), f.claims(), by_secret(o)),
        "algorithm",
        "algorithm",
    ),
    "HS256 with this public key, the other's claims": (
        lambda f, o: compact(o.header(alg="HS256"), o.claims(), by_secret(f)),
        "algorithm",
        "algorithm",
    ),
    "RS512 by this key, the other's claims": (
        lambda f, o: compact(o.header(alg="RS512"), o.claims(), rsa_signature(f.key, hashes.SHA512())),
        "algorithm",
        "algorithm",
    ),
    "none, the other's claims": (
        lambda f, o: f"{encoded(f.header(alg='none'))}.{encoded(o.claims())}.",
        "algorithm",
        "algorithm",
    ),
    "no issuer, signed by the other's key": (
        lambda f, o: compact(f.header(), f.claims(iss=None), rsa_signature(o.key)),
        "signature",
        "key_unknown",
    ),
    "both issuers in a list": (
        lambda f, o: f.genuine(claims=f.claims(iss=[named(f), named(o)])),
        "issuer",
        "key_unknown",
    ),
    "both issuers in a text": (
        lambda f, o: f.genuine(claims=f.claims(iss=f"{named(f)} {named(o)}")),
        "issuer",
        "key_unknown",
    ),
    "both issuers, one after the other": (
        lambda f, o: f.genuine(claims=repeated(f.claims(), "iss", named(o))),
        "malformed",
        "key_unknown",
    ),
    "the other issuer in a list": (lambda f, o: f.genuine(claims=f.claims(iss=[named(o)])), "issuer", "key_unknown"),
    "the other issuer and a slash": (
        lambda f, o: f.genuine(claims=f.claims(iss=f"{named(o)}/")),
        "issuer",
        "key_unknown",
    ),
    "the other issuer in upper case": (
        lambda f, o: f.genuine(claims=f.claims(iss=named(o).upper())),
        "issuer",
        "key_unknown",
    ),
    "the other issuer behind a blank": (
        lambda f, o: f.genuine(claims=f.claims(iss=f" {named(o)}")),
        "issuer",
        "key_unknown",
    ),
    "the other issuer": (lambda f, o: f.genuine(claims=f.claims(iss=named(o))), "signature", "key_unknown"),
    "this issuer in the header, none in the claims": (
        lambda f, o: f.genuine(header=f.header(iss=named(f)), claims=f.claims(iss=None)),
        "issuer",
        "key_unknown",
    ),
    "this header, the other's payload and signature": (
        lambda f, o: crossed_parts(f, o, o),
        "signature",
        "key_unknown",
    ),
    "the other's payload in between": (lambda f, o: crossed_parts(f, o, f), "signature", "key_unknown"),
    "the other's header": (lambda f, o: crossed_parts(o, f, f), "key_unknown", "signature"),
    "the other's signature": (lambda f, o: crossed_parts(f, f, o), "signature", "signature"),
}
"""How a token of one door claims to be the other's, and why it is refused: where this door is Entra ID's, and else."""


def attacks_at(door: str) -> tuple[Attack, ...]:
    """All attacks with the answers that they must get at this door, and those by which it claims to be the other."""
    if door == "entra":
        return (*ATTACKS, *_crossings(0))
    return (*(_at_oidc(attack) for attack in ATTACKS if not _signs_out(attack)), *_crossings(1))


def _crossings(number: int) -> Iterator[Attack]:
    for name, (make, *reasons) in CROSSINGS.items():
        answer = (403, "insufficient_scope") if reasons[number] == "scope" else (401, "invalid_token")
        yield Attack(f"door: {name}", as_request(partial(_crossing, make)), *answer, reasons[number])


def _crossing(make: Crossing, forger: Forger) -> str:
    assert forger.other is not None
    return make(forger, forger.other)


def _signs_out(attack: Attack) -> bool:
    """Whether it does what the other issuer's rules allow, and would sign its user out."""
    return attack.name.startswith("sign-out: ") and attack.name.removeprefix("sign-out: ") in ALLOWED_AT_OIDC


def _at_oidc(attack: Attack) -> Attack:
    resolves = attack.name.startswith("resolve: ")
    name = attack.name.removeprefix("sign-out: ").removeprefix("resolve: ")
    if resolves and (name in ALLOWED_AT_OIDC or attack.status in (400, 413, 415)):
        return replace(attack, status=403, error="insufficient_scope", reason="scope")  # whatever is asked
    if name in ALLOWED_AT_OIDC:
        another_user = name.startswith(("claim: an object id", "kind: a user of another"))
        allowed = (404, "identity_not_found") if another_user else (200, "none")
        return replace(attack, status=allowed[0], error=allowed[1], reason=None)
    if name in NAMING_NO_ISSUER or name.startswith("issuer:"):
        return replace(attack, reason="key_unknown")
    return attack


CONTROLS: dict[str, Request] = {
    "v2 token": as_request(lambda f: f.token(version=2)),
    "v1 token": as_request(lambda f: f.token(version=1)),
    "v1 token for the client id": as_request(lambda f: f.token(version=1, aud=f.audience)),
    "a guest of this tenant": as_request(lambda f: f.token("guest")),
    "scheme in lower case": headers(line("Authorization: bearer {token}")),
    "scheme in upper case": headers(line("Authorization: BEARER {token}")),
    "header's name in lower case": headers(line("authorization: Bearer {token}")),
    "several blanks behind the scheme": headers(line("Authorization: Bearer   {token}")),
    "blanks around the value": headers(line("Authorization:   Bearer {token}  ")),
    # RFC 9112, section 5.2: a server may replace the fold by a blank.
    "a fold behind the scheme": headers(line("Authorization: Bearer\r\n {token}")),
    "the scope among others": as_request(lambda f: f.token(scope=f"openid {f.scope} profile")),
    "typ of an access token (RFC 9068)": as_request(header(typ="at+jwt")),
    "no typ": as_request(header(typ=None)),
    "typ as RFC 9068 writes it in its example": as_request(header(typ="at+JWT")),
    "typ of an access token in full": as_request(header(typ="application/at+jwt")),
    "typ in lower case": as_request(header(typ="jwt")),
    "typ in full": as_request(header(typ="application/JWT")),
    "a text with 600 brackets": as_request(claims(note="[" * 600)),
    "a text with quotation marks and brackets": as_request(claims(note='\\"[' * 300)),
    "300 objects side by side": as_request(claims(note=[{}] * 300)),
    "a hundred levels of nesting": as_request(raw_claim("note", "[" * 99 + "]" * 99)),
    "what no rule asks about": as_request(claims(roles=[{"name": "x"}], jti=7, sub=7, groups=5)),
    "members of null": as_request(
        lambda f: f.genuine(claims={**f.claims(), "cnf": None, "events": None, "acct": None})
    ),
    "a token of the client's for the user, by its grant": as_request(claims(gty=["authorization_code"])),
    "expired within the leeway": as_request(lambda f: f.token(exp=int(time.time()) - 30)),
    "a token of 15 KiB": as_request(lambda f: f.token(filler="x" * 10 * 1024)),
    "a small body": headers(good, "Content-Length: 2", method="POST", body=b"{}"),
    "the whole address as target": headers(good, target="http://localhost/api/user"),
    "HTTP/1.0": headers(good, version="HTTP/1.0"),
}
"""What must be accepted: it proves that the corpus is refused for what is wrong with it, not by accident."""
