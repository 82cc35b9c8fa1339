"""An `az` on the search path that gives the tokens that it is told, so that an operator is signed in without Azure."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

NOBODY_SIGNED_IN = "ERROR: Please run 'az login' to setup account."


@dataclass(frozen=True, slots=True)
class FakeAzureCli:
    """What was installed: `directory` belongs onto the search path."""

    directory: Path

    def calls(self) -> list[str]:
        """The arguments of every call until now, one line each, with `typed` at the end if anything could be read."""
        log = self.directory / "calls"
        return log.read_text().splitlines() if log.exists() else []


def install(directory: Path, tokens: Mapping[str, str], otherwise: str = NOBODY_SIGNED_IN) -> FakeAzureCli:
    """Write `az` into `directory`; `tokens` are by resource, `otherwise` is what it writes in the absence of one."""
    directory.mkdir()
    cases = []
    for number, (resource, token) in enumerate(tokens.items()):
        answer = directory / f"answer-{number}.json"
        answer.write_text(json.dumps({"accessToken": token, "expires_on": 4_000_000_000, "tokenType": "Bearer"}))
        cases.append(f"*'--resource {resource}') cat {shlex.quote(str(answer))} ;;")
    script = [
        "#!/bin/sh",
        "PATH=/bin:/usr/bin",
        'read -r line && typed=" typed"',
        f'echo "$*$typed" >> {shlex.quote(str(directory / "calls"))}',
        'case "$*" in',
        *cases,
        f"*) echo {shlex.quote(otherwise)} >&2; exit 1 ;;",
        "esac",
    ]
    az = directory / "az"
    az.write_text("\n".join(script) + "\n")
    az.chmod(0o755)
    return FakeAzureCli(directory)
