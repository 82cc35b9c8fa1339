"""Connection strings: parsed once, and used as parsed."""

import base64
import re
from dataclasses import dataclass, field

from pydantic import SecretStr

from quart_app.settings.values import check_acs_address, check_guid, check_https_host


@dataclass(frozen=True, slots=True)
class AcsConnectionString:
    """What an ACS resource's connection string says: its address (https, no slash at the end) and one of its keys."""

    endpoint: str
    access_key: str = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> "AcsConnectionString":
        """Read it as it stands on the resource's Keys page; white space around its parts is ignored.

        Raises `ValueError` with what is wrong, without any of the text.
        """
        parts = _parts(text)
        if any(value for name, value in parts.items() if name not in ("endpoint", "accesskey")):
            raise ValueError(f"is the connection string of another service, by its parts; {_ACS_REMEDY}")
        try:
            key = base64.b64decode(parts.get("accesskey", ""), validate=True)
        except ValueError:
            key = b""
        if not key or "endpoint" not in parts:
            raise ValueError(f"{_ACS_FORM}; {_ACS_REMEDY}")
        try:
            return cls(check_acs_address(parts["endpoint"]), parts["accesskey"])
        except ValueError as error:
            raise ValueError(f"{_ACS_FORM}; its endpoint {error}") from None


def check_application_insights(value: SecretStr) -> SecretStr:
    """An Application Insights resource's connection string, as its SDK's parser reads it.

    The parser stumbles over a semicolon at the end, and misses what stands after white space.
    """
    text = value.get_secret_value()
    try:
        parts = _parts(text)
        check_guid(parts.get("instrumentationkey", ""))
        for name in ("ingestionendpoint", "liveendpoint"):
            if name in parts:
                check_https_host(parts[name])
        sound = not re.search(r"\s|;$|;;|^;", text)
    except ValueError:
        sound = False
    if not sound:
        raise ValueError(
            "must look like InstrumentationKey=GUID;IngestionEndpoint=https://…, without white space and without a "
            "semicolon at the end; copy it from the Application Insights resource's overview"
        )
    return value


def _parts(text: str) -> dict[str, str]:
    """The parts by their names in lower case, which is how Azure's SDKs compare them. Raises `ValueError`."""
    parts: dict[str, str] = {}
    for part in filter(str.strip, text.split(";")):
        name, _, value = (piece.strip() for piece in part.partition("="))
        if name.lower() in parts:
            raise ValueError("has a part twice; copy it once, and whole")
        parts[name.lower()] = value
    return parts


_ACS_FORM = "must look like endpoint=https://NAME.communication.azure.com/;accesskey=KEY"
_ACS_REMEDY = "copy it from the ACS resource's Keys page"
