"""What `make docs` adds to MkDocs. GitHub shows the documents, too, so links work in both places.

A link that leaves docs/ leads to a file of the repository: the site turns it into that file's address there, and a link
to no file fails the strict build. Mermaid draws the diagrams, from the copy of it that `make docs` fetched.
"""

import logging
import os
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent
logger = logging.getLogger("mkdocs.hooks.repository_links")

_FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)
_BLOCK_OF_A_STEP = re.compile(r"^ {3}```.*?^ {3}```$", re.MULTILINE | re.DOTALL)
_INCLUDE = re.compile(r"^<!-- include (\S+) -->$", re.MULTILINE)
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")


def on_config(config: Any) -> Any:
    """Adds the copy of Mermaid that the variable MERMAID_JS names: without one the theme loads it from unpkg.com."""
    if os.environ.get("MERMAID_JS"):
        config["extra_javascript"].append("assets/mermaid.min.js")
    return config


def on_post_build(config: Any) -> None:
    """Puts that copy into the site."""
    if source := os.environ.get("MERMAID_JS"):
        target = Path(config["site_dir"], "assets", "mermaid.min.js")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(Path(source).read_bytes())


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Any) -> str:
    """The page with the links that leave docs/ as addresses of the repository; one to no file is a warning.

    MkDocs takes a block for a part of a numbered step only if it is indented by four blanks; GitHub needs three.
    """
    markdown = _INCLUDE.sub(lambda include: included(include[1]), markdown)
    markdown = _BLOCK_OF_A_STEP.sub(
        lambda block: block[0].replace("   ", "    ", 1).replace("\n   ", "\n    "), markdown
    )
    return with_repository_links(markdown, Path(page.file.abs_src_path), config["repo_url"])


def included(name: str) -> str:
    """The file `name` of the repository without its title, for a page that GitHub shows with a link to it."""
    return (ROOT / name).read_text().partition("\n")[2].strip()


def with_repository_links(markdown: str, path: Path, repository: str) -> str:
    """`markdown` of the file `path`, whose links out of docs/ lead to `repository`."""

    def address(link: re.Match[str]) -> str:
        target = (path.parent / link[1]).resolve()
        if not target.is_relative_to(ROOT) or target.is_relative_to(ROOT / "docs"):
            return link[0]
        if not target.exists():
            logger.warning("%s links to %s, which does not exist.", path.relative_to(ROOT), link[1])
            return link[0]
        kind = "tree" if target.is_dir() else "blob"
        return f"{repository.rstrip('/')}/{kind}/main/{target.relative_to(ROOT)}{link[2] or ''}"

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(address, markdown[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, _LINK.sub(address, markdown[end:])])
