"""Reads the environment and `.env` into `Settings`; every fault is reported at once."""

import difflib
import os
from collections.abc import Iterable
from pathlib import Path

from dotenv import dotenv_values
from pydantic import ValidationError

from quart_app.settings.checks import contradictions
from quart_app.settings.groups import GROUPS, EntraSettings, Group, Settings, aliases, variable_name, variable_names


class InvalidSettings(Exception):
    """The settings can't be used; `faults` holds one sentence for each thing that is wrong, none with a secret."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read the environment, then `env_file` (the environment wins).

    Raises `InvalidSettings` with every fault: missing, malformed and contradictory values, and unknown variables that
    carry one of our prefixes.
    """
    faults: list[str] = []
    groups: dict[str, Group] = {}
    for name, group in GROUPS.items():
        try:
            groups[name] = group(_env_file=env_file)  # type: ignore[call-arg]
        except ValidationError as error:
            faults += _sentences(group, error)
    faults += _missing_registration(env_file)
    faults += contradictions(groups)
    faults += _unknown_variables(env_file)
    if faults:
        raise InvalidSettings(faults)
    return Settings(**groups)  # type: ignore[arg-type]


def _sentences(group: type[Group], error: ValidationError) -> Iterable[str]:
    by_alias = {alias.lower(): field for field, alias in aliases(group)}
    for fault in error.errors(include_input=False, include_url=False):
        message = fault["msg"].removeprefix("Value error, ")
        location = str(fault["loc"][0])
        name = variable_name(group, by_alias.get(location.lower(), location.lower()))
        if fault["type"] == "missing":
            yield f"{name} is not set."
        else:
            yield f"{name}: {message}."


def _missing_registration(env_file: Path | None) -> Iterable[str]:
    """The Entra settings that nothing but another issuer makes up for."""
    variables: dict[str, str | None] = {**(dotenv_values(env_file) if env_file else {}), **os.environ}
    given = {name.upper() for name, value in variables.items() if value}
    if "OIDC_ISSUER" not in given:
        for required in ("tenant_id", "client_id"):
            if not any(alias.upper() in given for field, alias in aliases(EntraSettings) if field == required):
                yield f"{variable_name(EntraSettings, required)} is not set."


def _unknown_variables(env_file: Path | None) -> Iterable[str]:
    known = variable_names()
    accepted = {*known, *(alias.upper() for group in GROUPS.values() for _, alias in aliases(group))}
    prefixes = [str(prefix) for group in GROUPS.values() if (prefix := group.model_config.get("env_prefix"))]
    given = {*os.environ, *(dotenv_values(env_file) if env_file else ())}
    for name in sorted(given):
        prefix = next((prefix for prefix in prefixes if name.upper().startswith(prefix)), None)
        if prefix and name.upper() not in accepted:
            related = [candidate for candidate in known if candidate.startswith(prefix)]
            nearest = difflib.get_close_matches(name.upper(), related, n=1, cutoff=0)[0]
            yield f"{name} is not a setting; did you mean {nearest}?"
