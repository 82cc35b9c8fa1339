"""Reads the environment and `.env` into `Settings`; every fault is reported at once."""

import os
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from quart_app.settings.checks import contradictions
from quart_app.settings.groups import (
    GROUPS,
    EntraSettings,
    Group,
    Settings,
    is_list,
    is_secret,
    key_of,
    names_of,
    variable_name,
)
from quart_app.settings.names import accepted_names, strangers
from quart_app.settings.texts import text_fault
from quart_app.settings.variables import Variable, Variables, read_variables
from upstream.certificate_authorities import unusable_bundles


class InvalidSettings(Exception):
    """The settings can't be used; `faults` holds one sentence for each thing that is wrong, none with a secret."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read the environment, and what it doesn't set from `env_file`.

    Raises `InvalidSettings` with every fault: missing, malformed and contradictory values, lines that can't be
    understood, and unknown variables that carry one of our prefixes.
    """
    variables = read_variables(os.environ, env_file)
    unknown = list(strangers(variables.given.values()))
    meant = {stranger.meant for stranger in unknown if stranger.meant}
    faults = [*variables.faults, *_repeated(variables), *unusable_bundles(os.environ)]
    groups: dict[str, Group] = {}
    sources: dict[str, str] = {}
    for name, group in GROUPS.items():
        chosen = dict(_chosen(group, variables.given))
        sources |= {variable_name(group, field): _source(group, field, chosen[field]) for field in chosen}
        if told := list(_text_faults(group, chosen)):
            faults += told
            continue
        try:
            groups[name] = group(**{key_of(group, field): variable.value for field, variable in chosen.items()})
        except ValidationError as error:
            faults += _sentences(group, error)
    faults += _missing_registration(sources.keys() | meant)
    faults += contradictions(groups, datetime.now(UTC))
    # Where a name is misspelt, only that is reported: not that the setting is missing, nor what follows from it.
    absent = meant - sources.keys()
    faults = [fault for fault in faults if not absent.intersection(re.findall(r"\w+", fault))]
    faults += [stranger.sentence for stranger in unknown]
    if faults:
        raise InvalidSettings(faults)
    return Settings(**groups, sources=sources)  # type: ignore[arg-type]


def _repeated(variables: Variables) -> Iterable[str]:
    for variable in variables.repeated:
        if variable.name.upper() in accepted_names():
            yield f"{variable.name} is set twice, the second time to another value ({variable.source}); keep only one."


def _chosen(group: type[Group], given: Mapping[str, Variable]) -> Iterable[tuple[str, Variable]]:
    """Of the names that a setting has, the first that is set counts."""
    for field in group.model_fields:
        variable = next((given[name.upper()] for name in names_of(group, field) if name.upper() in given), None)
        if variable is not None:
            yield field, variable


def _source(group: type[Group], field: str, variable: Variable) -> str:
    own = variable_name(group, field)
    return variable.source if variable.name.upper() == own else f"{variable.source}, as {variable.name}"


def _text_faults(group: type[Group], chosen: Mapping[str, Variable]) -> Iterable[str]:
    for field, variable in chosen.items():
        fault = text_fault(
            variable.value,
            secret=is_secret(group, field),
            spaced=is_list(group, field) or variable_name(group, field) == "ACS_CONNECTION_STRING",
        )
        if fault is not None:
            yield f"{variable_name(group, field)} {fault}."


def _sentences(group: type[Group], error: ValidationError) -> Iterable[str]:
    fields = {key_of(group, field).lower(): field for field in group.model_fields}
    for fault in error.errors(include_input=False, include_url=False):
        field = fields[str(fault["loc"][0]).lower()]
        name = variable_name(group, field)
        yield f"{name} is not set." if fault["type"] == "missing" else f"{name}: {_rule(group, field, fault)}."


def _rule(group: type[Group], field: str, fault: ErrorDetails) -> str:
    """What the value must be, in our own words."""
    information = group.model_fields[field]
    annotation: Any = information.annotation
    if fault["type"] == "value_error":
        return fault["msg"].removeprefix("Value error, ")
    if annotation is bool:
        return "must be true or false"
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return f"must be one of {', '.join(annotation)}"
    if annotation in (int, float):
        kind = "a whole number" if annotation is int else "a number"
        bounds = {key: getattr(each, key) for each in information.metadata for key in _BOUNDS if hasattr(each, key)}
        return " ".join(["must be", kind, *(f"{_BOUNDS[key]} {bound}" for key, bound in bounds.items())])
    return "can't be understood"


def _missing_registration(given: Iterable[str]) -> Iterable[str]:
    """The Entra settings that only another issuer makes up for."""
    if "OIDC_ISSUER" not in given:
        for field in ("tenant_id", "client_id"):
            if (name := variable_name(EntraSettings, field)) not in given:
                yield f"{name} is not set."


_BOUNDS = {"gt": "above", "ge": "of at least", "lt": "below", "le": "up to"}
