"""Markdown as the tests of the documents read it: headings, links and blocks of one file."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(
    r"^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
_TARGET = r"\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)"
_LINK = re.compile(r"\[(?:[^\[\]]|\[[^\]]*\])*\]" + _TARGET)
_LINKED_IMAGE = re.compile(r"\[!\[[^\]]*\]" + _TARGET + r"\]\(")


@dataclass(frozen=True, slots=True)
class Page:
    """One file. `links` are as they are written."""

    path: Path
    text: str

    @property
    def name(self) -> str:
        """The path, within the project if it is there."""
        return (self.path.relative_to(ROOT) if self.path.is_relative_to(ROOT) else self.path).as_posix()

    @property
    def prose(self) -> str:
        """The text without its blocks."""
        return _FENCE.sub("", self.text)

    def blocks(self, *languages: str) -> Iterator[str]:
        """The blocks in these languages, without the indentation of a step in a list."""
        for fence in _FENCE.finditer(self.text):
            if fence["language"] in languages:
                yield re.sub(f"^{fence['indent']}", "", fence["body"], flags=re.MULTILINE)

    def links(self) -> Iterator[str]:
        """Where its links lead, and those of images within a link."""
        text = re.sub(r"`[^`\n]*`", "code", self.prose)
        yield from _LINKED_IMAGE.findall(text)
        # An image within a link is no text that _LINK understands.
        yield from _LINK.findall(_LINKED_IMAGE.sub("[image](", text))

    def anchors(self) -> set[str]:
        """What can be linked to within the page, as GitHub names it: a repeated heading gets a number."""
        seen: Counter[str] = Counter()
        found = set()
        for heading in re.findall(r"^#+ (.+?)\s*$", self.prose, re.MULTILINE):
            plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
            anchor = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
            found.add(f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor)
            seen[anchor] += 1
        return found


def page(path: Path) -> Page:
    """The file as a page."""
    return Page(path, path.read_text())


def pages() -> list[Page]:
    """Every Markdown file of the project that is committed or about to be."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [page(ROOT / name) for name in sorted(set(listed.stdout.splitlines())) if (ROOT / name).exists()]
