"""What the tests of settings begin with: an environment with which the service would start."""

from pathlib import Path

import pytest

from quart_app.settings import InvalidSettings, Settings, load_settings

TENANT = "11112222-bbbb-3333-cccc-4444dddd5555"
CLIENT = "00001111-aaaa-2222-bbbb-3333cccc4444"
GOOD = {
    "ENTRA_TENANT_ID": TENANT,
    "ENTRA_CLIENT_ID": CLIENT,
    "ACS_CONNECTION_STRING": "endpoint=https://contoso.communication.azure.com/;accesskey=c2VjcmV0LWtleQ==",
    "STORAGE_BACKEND": "sqlite",
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def faults(file: Path | None = None) -> list[str]:
    """What is wrong with the settings of the environment and of `file`. One at least must be."""
    with pytest.raises(InvalidSettings) as caught:
        load_settings(file)
    return caught.value.faults


def loaded() -> Settings:
    return load_settings(None)
