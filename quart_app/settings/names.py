"""Names that are almost ours: misspelt ones, those of the samples that mean nothing here, and those of others."""

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from quart_app.settings.groups import GROUPS, names_of, variable_names
from quart_app.settings.variables import Variable


@dataclass(frozen=True, slots=True)
class Stranger:
    """A variable that looks like one of ours and is none: the sentence about it, and which one was probably meant."""

    sentence: str
    meant: str | None = None


def strangers(variables: Iterable[Variable]) -> Iterable[Stranger]:
    """Each variable that is not a setting, but has one of our prefixes or the samples', or nearly a setting's name."""
    known = variable_names()
    accepted = accepted_names()
    for variable in sorted(variables, key=lambda each: each.name):
        name = variable.name.replace(":", "__").upper()
        if name in accepted or _is_of_a_kubernetes_service(name, variable.value):
            continue
        if name.startswith(_SAMPLES_PREFIXES):
            yield Stranger(f"{variable.name} {_MEANINGLESS.get(name, _OF_A_SAMPLE)}")
            continue
        prefix = next((group.prefix for group in GROUPS.values() if group.prefix and name.startswith(group.prefix)), "")
        nearest = difflib.get_close_matches(
            name, [each for each in known if each.startswith(prefix)], n=1, cutoff=0 if prefix else _ALL_BUT_THE_SAME
        )
        if nearest:
            sure = difflib.SequenceMatcher(None, name, nearest[0]).ratio() >= _SURELY_MEANT
            sentence = f"{variable.name} is not a setting; did you mean {nearest[0]}?"
            yield Stranger(sentence, nearest[0] if sure else None)


def accepted_names() -> set[str]:
    """Every name, in capitals, by which a setting may be set."""
    return {
        name.upper() for group in GROUPS.values() for field in group.model_fields for name in names_of(group, field)
    }


def _is_of_a_kubernetes_service(name: str, value: str) -> bool:
    """Whether Kubernetes set it for a Service whose name begins like one of our prefixes.

    https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables
    """
    if re.fullmatch(r"\w+_SERVICE_(HOST|PORT(_\w+)?)|\w+_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?", name):
        return True
    return name.endswith("_PORT") and re.match(r"(tcp|udp|sctp)://", value) is not None


_SAMPLES_PREFIXES = (
    "AZUREACTIVEDIRECTORY_",
    "MICROSOFTENTRAID_",
    "COMMUNICATIONSERVICES_",
    "GRAPH__",
)
_OF_A_SAMPLE = "looks like a setting of Microsoft's samples, and means nothing here; leave it out."
_MEANINGLESS = {
    "GRAPH__SCOPES": (
        "means nothing here; leave it out: STORAGE_BACKEND=graph asks Microsoft Graph for User.ReadWrite by itself."
    ),
}
_ALL_BUT_THE_SAME = 0.92
_SURELY_MEANT = 0.8
