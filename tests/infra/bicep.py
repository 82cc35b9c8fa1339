"""Microsoft's Bicep compiler, run on a copy of `infra/`; offline where the Graph extension's types lie beside."""

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
TOOLS = ROOT.parent / "shared"
GRAPH_TYPES = TOOLS / "types" / "msgraph-v1.0-1.0.0.tgz"
MISSING = (
    "infra/ was not built, linted or checked: there is no Bicep compiler. "
    "Install it (az bicep install), or name it: make infra BICEP=/path/to/bicep"
)
SUBSCRIPTION, TENANT = "00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"
DIAGNOSTIC = re.compile(r" : (Error|Warning|Info) ")


def find_compiler() -> str | None:
    """`$BICEP`, the one on the path, the Azure CLI's, or the one beside the project; `None` where there is none.

    Raises `FileNotFoundError` if `$BICEP` names no program: who names one wants the check.
    """
    if named := os.environ.get("BICEP"):
        if not shutil.which(named):
            raise FileNotFoundError(f"BICEP={named} is not a program.")
        return named
    candidates = ("bicep", str(Path.home() / ".azure" / "bin" / "bicep"), str(TOOLS / "tools" / "bicep"))
    return next((found for each in candidates if (found := shutil.which(each))), None)


class Bicep:
    """The compiler on a copy of `infra/` in `directory`; the original is never written to."""

    def __init__(self, compiler: str, directory: Path) -> None:
        self._compiler = compiler
        self.infra = directory / "infra"
        shutil.copytree(ROOT / "infra", self.infra, copy_function=shutil.copyfile)
        if GRAPH_TYPES.exists():
            self._take_graph_types(directory)

    def findings(self) -> list[str]:
        """What the compiler, its linter and its formatter have to say about any file; a warning is a finding."""
        built = self._build()
        found = self._diagnostics(built)
        if built.returncode and not found:
            raise RuntimeError(built.stderr)
        before = {path: path.read_text() for path in sorted(self.infra.rglob("*.bicep"))}
        self._run("format", "--pattern", "**/*.bicep")
        found += [
            f"{path.relative_to(self.infra)}: not as `bicep format` writes it"
            for path, text in before.items()
            if path.read_text() != text
        ]
        return found

    def templates(self) -> dict[str, dict[str, Any]]:
        """Every file compiled: its path in `infra/` without the suffix, and the ARM template."""
        if not self._arm.exists():
            self._build()
        paths = sorted(self._arm.rglob("*.json"))
        return {str(path.relative_to(self._arm).with_suffix("")): json.loads(path.read_text()) for path in paths}

    def parameters(self, file: str, environment: Mapping[str, str]) -> tuple[dict[str, Any], list[str]]:
        """What a parameter file gives with these environment variables, and what the compiler says against it."""
        done = self._run("build-params", file, "--stdout", environment=environment)
        if done.returncode:
            return {}, self._diagnostics(done)
        given = json.loads(json.loads(done.stdout)["parametersJson"])["parameters"]
        return {name: each["value"] for name, each in given.items()}, []

    def snapshot(self, template: str, parameters: Mapping[str, Any], name: str = "one") -> tuple[dict[str, Any], str]:
        """What Azure would be asked for; or nothing, and the sentence that refuses it. Names may be used at once.

        The compiled template is evaluated, which takes half the time.
        """
        if not self._arm.exists():
            self._build()
        name = f"snapshot-of-{name}"
        lines = "".join(f"param {key} = {_literal(value)}\n" for key, value in parameters.items())
        (self.infra / f"{name}.bicepparam").write_text(f"using '../arm/{template}.json'\n{lines}")
        made = self.infra / f"{name}.snapshot.json"
        made.unlink(missing_ok=True)
        group = [] if template == "main" else ["--resource-group", "rg-prod"]
        done = self._run(
            *("snapshot", f"{name}.bicepparam", "--subscription-id", SUBSCRIPTION, "--tenant-id", TENANT),
            *("--location", "westeurope", "--deployment-name", "deployment", *group),
        )
        (self.infra / f"{name}.bicepparam").unlink()
        text = re.sub(r"\s+", " ", done.stdout + done.stderr)
        if not made.exists():
            return {}, text
        snapshot: dict[str, Any] = json.loads(made.read_text())
        made.unlink()
        return snapshot, text

    @property
    def _arm(self) -> Path:
        return self.infra.parent / "arm"

    def _build(self) -> subprocess.CompletedProcess[str]:
        return self._run("build", "--pattern", "**/*.bicep", "--outdir", self._arm)

    def _take_graph_types(self, directory: Path) -> None:
        """Takes the Graph extension from the file beside the project, so that nothing is downloaded."""
        shutil.copyfile(GRAPH_TYPES, directory / GRAPH_TYPES.name)
        config = self.infra / "bicepconfig.json"
        text = re.sub(r'"br:[^"]*/microsoftgraph/[^"]*"', f'"../{GRAPH_TYPES.name}"', config.read_text())
        config.write_text(text)
        only = self.infra / "only-the-extension.bicep"
        only.write_text("extension microsoftGraphV1\n")
        self._run("restore", only.name)
        only.unlink()

    def _run(
        self, *arguments: object, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self._compiler, *map(str, arguments)],
            cwd=self.infra,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def _diagnostics(self, done: subprocess.CompletedProcess[str]) -> list[str]:
        lines = [line.replace(f"{self.infra}/", "") for line in done.stderr.splitlines() if DIAGNOSTIC.search(line)]
        return list(dict.fromkeys(lines))


def _literal(value: object) -> str:
    """A value as Bicep writes it."""
    match value:
        case bool() | int():
            return json.dumps(value)
        case list():
            return "[\n" + "".join(f"{_literal(each)}\n" for each in value) + "]"
        case dict():
            return "{\n" + "".join(f"{_key(key)}: {_literal(each)}\n" for key, each in value.items()) + "}"
    text = str(value).replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{text}'"


def _key(name: str) -> str:
    """A property's name, in quotes only where the linter wants them."""
    return name if name.isidentifier() else _literal(name)
