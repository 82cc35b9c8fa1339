"""Every link within the project leads to a file that is there, and to a heading that is there."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from mkdocs_hooks import included, with_repository_links
from tests.support.markdown import ROOT, Page, page, pages

_OF_A_WORKFLOW = re.compile(r"\.\./\.\./actions/workflows/([\w-]+\.yml)(/badge\.svg)?")
"""What GitHub, on a file in the root, takes for the page of one of the repository's workflows, whoever owns it."""


def faults(each: Page) -> Iterator[str]:
    for link in each.links():
        if "://" in link or link.startswith("mailto:"):
            continue
        if each.path.parent == ROOT and (workflow := _OF_A_WORKFLOW.fullmatch(link)):
            if not (ROOT / ".github/workflows" / workflow[1]).exists():
                yield f"{each.name}: {link}: there is no such workflow"
            continue
        name, _, anchor = link.partition("#")
        target = (each.path.parent / name).resolve() if name else each.path
        if not target.exists():
            yield f"{each.name}: {link}: there is no such file"
        elif anchor and target.suffix == ".md" and anchor not in page(target).anchors():
            yield f"{each.name}: {link}: there is no such heading"


def test_every_link_leads_somewhere(record_property: Callable[[str, object], None]) -> None:
    found = pages()
    assert [fault for each in found for fault in faults(each)] == []
    record_property(
        "documents", f"{sum(1 for each in found for _ in each.links())} links of {len(found)} pages followed"
    )


@pytest.mark.parametrize("link", ["nothing.md", "#nothing", "there.md#nothing", "there.md#in-a-block"])
def test_a_link_to_nothing_is_noticed(link: str, tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# There\n\n```sh\n# in a block\n```\n")
    assert len(list(faults(Page(tmp_path / "here.md", f"# Here\n\n[x]({link}) [y](there.md#there)\n")))) == 1


def test_a_badge_of_no_workflow_is_noticed() -> None:
    badge = "[![x](../../actions/workflows/{0}/badge.svg)](../../actions/workflows/{0})\n"
    assert list(faults(Page(ROOT / "README.md", badge.format("ci.yml")))) == []
    assert len(list(faults(Page(ROOT / "README.md", badge.format("nothing.yml"))))) == 2


def test_the_site_has_every_page_in_its_tree_once() -> None:
    text = (ROOT / "mkdocs.yml").read_text()
    tree = yaml.safe_load(text[text.index("\nnav:\n") :])["nav"]

    def leaves(node: object) -> Iterator[str]:
        if isinstance(node, str):
            yield node
        elif isinstance(node, list | dict):
            for each in node.values() if isinstance(node, dict) else node:
                yield from leaves(each)

    docs = ROOT / "docs"
    assert sorted(leaves(tree)) == sorted(each.relative_to(docs).as_posix() for each in docs.rglob("*.md"))


def test_a_link_out_of_the_documents_leads_to_the_repository_on_the_site() -> None:
    text = "[a](../LICENSE) [b](../README.md#routes) [c](../infra) [d](design.md) [e](https://x.y)\n```\n[f](../LICENSE)\n```\n"
    assert with_repository_links(text, ROOT / "docs/index.md", "https://host/o/r") == (
        "[a](https://host/o/r/blob/main/LICENSE) [b](https://host/o/r/blob/main/README.md#routes) "
        "[c](https://host/o/r/tree/main/infra) [d](design.md) [e](https://x.y)\n```\n[f](../LICENSE)\n```\n"
    )


def test_the_site_includes_a_file_without_its_title() -> None:
    assert included("CHANGELOG.md").startswith("What changed")
    assert "<!-- include CHANGELOG.md -->" in (ROOT / "docs/reference/changelog.md").read_text()


def test_a_link_to_no_file_of_the_repository_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with_repository_links("[a](../NO_SUCH_FILE)", ROOT / "docs/index.md", "https://host/o/r")
    assert caplog.messages == ["docs/index.md links to ../NO_SUCH_FILE, which does not exist."]
