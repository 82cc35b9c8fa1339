"""Every heading and promise of the two READMEs that this project comes from has its answer."""

import re
from collections.abc import Callable

from tests.support.markdown import ROOT, page

PAGE = page(ROOT / "docs/help/from-the-samples.md")
HEADINGS = (
    "Overview", "Scenario 1", "Scenario 2", "Still learning", "other language's sample", "getUser", "getToken",
    "exchangeToken", "Workflow", "client is not part", "Prerequisites", "Register client and server", "ACS resource",
    "Code structure", "first time", "Locally deploying", "Architecture design", "Secured web API",
    "Identity mapping design", "Token exchange", "storage options", "Privacy", "Alternative identity mapping",
    "Bring your own identity", "Endpoints", "at most two extensions", "doesn't belong to the resource",
    "Entra token issues", "consent errors", "stack trace", "Application Insights", "Publish to Azure", "Building off",
    "write unit tests", "Submit a PR", "Need help", "Resources", "Known issues", "trademark",
)  # fmt: skip


def test_each_heading_has_a_line_with_links(record_property: Callable[[str, object], None]) -> None:
    rows = re.findall(r"^\| (\d+) \| (?:A|B|A, B) \| (.+?) \| (.+) \|$", PAGE.text, re.MULTILINE)
    assert [int(number) for number, _, _ in rows] == list(range(1, len(HEADINGS) + 1))
    unanswered = [
        heading
        for heading, (_, title, answer) in zip(HEADINGS, rows, strict=True)
        if heading.lower() not in title.lower() or "](" not in answer
    ]
    assert unanswered == []
    record_property("documents", f"{len(rows)} headings of the two original READMEs answered")
