"""The published tables of upstream errors say what the code does."""

from pathlib import Path

import pytest

from tests.support.upstream_tables import TABLES, rows
from upstream.refusals import Blame

DOCUMENT = Path(__file__).parent.parent / "docs" / "upstream-errors.md"

ANSWERS = {
    Blame.PASSING: {"503 `service_unavailable`"},
    Blame.TOKEN: {"401 `invalid_token`", "401 `teams_token_token`", "400 `teams_token_client`"},
    Blame.SIGN_IN: {"403 `step_up_required`"},
    Blame.RIGHTS: {"403 `user_not_allowed`", "403 `teams_user_not_allowed`", "403 `teams_token_user`"},
    Blame.NO_USER: {"403 `user_not_found`"},
    Blame.CONSENT: {"403 `consent_required`"},
    Blame.SET_UP: {"502 `upstream_credentials_rejected`"},
}


def published(title: str) -> list[str]:
    """The rows of the table below this heading."""
    _, _, section = DOCUMENT.read_text().partition(f"\n## {title}\n")
    lines = section.partition("\n## ")[0].splitlines()
    return [line for line in lines if line.startswith("| `")]


@pytest.mark.parametrize("title", TABLES)
def test_the_document_says_what_the_code_does(title: str) -> None:
    assert published(title) == rows(title), "python -m tests.support.upstream_tables prints the tables"


@pytest.mark.parametrize("title", TABLES)
def test_what_a_client_gets_follows_from_whom_a_refusal_blames(title: str) -> None:
    for row in rows(title):
        _, _, blame, answer, advice, source, _ = (cell.strip() for cell in row.split("|"))
        assert answer in ANSWERS[Blame(blame)], row
        assert advice.endswith(".")
        assert source.startswith("[page](https://")


def test_no_code_stands_in_a_table_twice() -> None:
    for title, (refusals, _) in TABLES.items():
        codes = [refusal.code for refusal in refusals]
        assert len(codes) == len(set(codes)), title
