"""The tables of docs/upstream-errors.md as the code has them: `python -m tests.support.upstream_tables` prints them.

What a client gets is not written down anywhere: an answer with each code goes through the code that translates it.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import cast

from quart_app import credentials
from quart_app.acs import refusals as acs
from quart_app.auth.on_behalf_of import refusals as entra
from quart_app.web.errors import describe
from storage import cosmos, cosmos_refusals, graph_refusals
from storage.cosmos_options import CosmosOptions
from storage.graph import GraphMappingStore, _GraphAnswer
from storage.graph_options import GraphOptions
from tests.support.running_graph import SEAL_KEYS
from upstream.refusals import Refusal

_ANY_OTHER = "AnyOtherCode"


def _entra(refusal: Refusal) -> BaseException:
    number = refusal.code.removeprefix("AADSTS")
    body = {"error": "invalid_grant", "error_codes": [int(number)]} if number.isdigit() else {"error": refusal.code}
    return entra.refused(400, {}, json.dumps(body).encode())


def _graph(refusal: Refusal) -> BaseException:
    status, code = _status_and_code(refusal.code)
    own = refusal is not graph_refusals.NOT_ITS_OWN
    store = GraphMappingStore(cast("object", None), GraphOptions(SEAL_KEYS), None, None, cast("object", None))  # type: ignore[arg-type]
    return store._error(_GraphAnswer(status, {}, code if own else None, "", None, None, "", None))


def _cosmos(refusal: Refusal) -> BaseException:
    status, _, sub_status = refusal.code.partition("/")
    own = refusal is not cosmos_refusals.NOT_ITS_OWN
    row = cosmos_refusals.row_for(_status(status), int(sub_status or 0), its_own=own)
    return cosmos._meant(CosmosOptions("", "", ""), _status(status), int(sub_status or 0), {}, row)


def _acs(refusal: Refusal, *, teams: bool = False) -> BaseException:
    status, code = _status_and_code(refusal.code)
    code, _, target = code.partition(" ")
    given = None if refusal is acs.NOT_ITS_OWN else code
    return acs.error_for(acs.row_for(status, given, target, teams=teams), status, target, None)


def _identity(refusal: Refusal) -> BaseException:
    return credentials.refused(_status(refusal.code), {})


def _status(text: str) -> int:
    """A status that the row is about; for the rows about other things any that is not special."""
    return int(text.replace("xx", "00")) if text[:3].replace("x", "0").isdigit() else 418


def _status_and_code(text: str) -> tuple[int, str]:
    status, _, code = text.partition(" ")
    return _status(status), code if status[:1].isdigit() and code else _ANY_OTHER


TABLES: Mapping[str, tuple[Iterable[Refusal], Callable[[Refusal], BaseException]]] = {
    "Entra ID, by code": (entra.CODES.values(), _entra),
    "Entra ID, by `error`": (entra.ERRORS.values(), _entra),
    "Managed identity": (credentials.REFUSALS, _identity),
    "Azure Communication Services": ((*acs.REFUSALS, acs.NOT_ITS_OWN), _acs),
    "Teams exchange": (acs.TEAMS_REFUSALS, lambda refusal: _acs(refusal, teams=True)),
    "Microsoft Graph": ((*graph_refusals.REFUSALS.values(), graph_refusals.NOT_ITS_OWN), _graph),
    "Cosmos DB": ((*cosmos_refusals.REFUSALS.values(), cosmos_refusals.NOT_ITS_OWN), _cosmos),
}


def rows(title: str) -> list[str]:
    """The rows of one table, as Markdown: what has the same meaning stands together."""
    refusals, error_of = TABLES[title]
    together: dict[tuple[str, str, str, str], list[str]] = {}
    for refusal in refusals:
        name = describe(error_of(refusal), "").error
        key = (refusal.blame, f"{name.status} `{name}`", refusal.advice, refusal.source)
        together.setdefault(key, []).append(f"`{refusal.code.removeprefix('AADSTS')}`")
    return [
        f"| {', '.join(codes)} | {blame} | {answer} | {advice} | [page]({source}) |"
        for (blame, answer, advice, source), codes in together.items()
    ]


if __name__ == "__main__":
    for title in TABLES:
        print(f"\n## {title}\n", *rows(title), sep="\n")  # noqa: T201
