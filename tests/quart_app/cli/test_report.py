"""`--report`: opened before the run, readable only by its owner, put in its place in one step."""

import json
import os
from pathlib import Path

import pytest

from quart_app.cli import main
from quart_app.cli.common import Report
from storage.mapping import MappingStore
from tests.quart_app.cli.conftest import AcsAuth


def reports_in(directory: Path) -> list[str]:
    """What is there of a report, finished or not."""
    return [each.name for each in directory.iterdir() if "report" in each.name]


def is_a_device(path: Path) -> bool:
    return path.is_char_device()


COMMANDS = [("reconcile",), ("migrate", "--from", "sqlite", "--to", "cosmos")]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", ["in no directory", "a directory", "a link", "a dangling link", "a pipe", "a device"])
async def test_a_report_that_cannot_be_written_stops_the_run_before_it_begins(
    command: tuple[str, ...],
    kind: str,
    sqlite_store: MappingStore,
    acs_auth: AcsAuth,
    tmp_path: Path,
) -> None:
    path, elsewhere = tmp_path / "report.json", tmp_path / "elsewhere.json"
    match kind:
        case "in no directory":
            path = tmp_path / "missing" / "report.json"
        case "a directory":
            path.mkdir()
        case "a link":
            elsewhere.write_text("kept")
            path.symlink_to(elsewhere)
        case "a dangling link":
            path.symlink_to(elsewhere)
        case "a pipe":
            os.mkfifo(path)
        case _:
            path = Path("/dev/null")
    result = await acs_auth(*command, "--report", str(path))
    assert result.exit_code == 2
    assert str(path) in result.stderr.replace("\n", "")
    assert result.stdout == ""
    assert is_a_device(path) or kind != "a device"
    if kind == "a link":
        assert elsewhere.read_text() == "kept"
    if kind == "a dangling link":
        assert not elsewhere.exists()


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_report_over_an_older_file_is_readable_only_by_its_owner(
    command: tuple[str, ...], sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    path.write_text("older")
    path.chmod(0o644)
    held = path.open()
    assert (await acs_auth(*command, "--report", str(path))).exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["mappings"] == []
    assert held.read() == "older", "it was written into the older file"
    held.close()
    assert reports_in(tmp_path) == ["report.json"]


async def test_a_run_that_fails_leaves_the_older_report(
    environment: dict[str, str | None], acs_auth: AcsAuth, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    path.write_text("older")
    environment["ACS_CONNECTION_STRING"] = "nonsense"
    assert (await acs_auth("reconcile", "--report", str(path))).exit_code == 2
    assert path.read_text() == "older"
    assert reports_in(tmp_path) == ["report.json"]


def test_a_report_that_fails_at_the_end_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report(tmp_path / "report.json")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(json, "dump", full)
    with pytest.raises(SystemExit) as ended:
        report.write({})
    report.discard()
    assert ended.value.code == 1
    assert capsys.readouterr().err.strip().endswith("can't be written (No space left on device).")
    assert list(tmp_path.iterdir()) == []


def test_no_summary_of_a_command_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    for command in main.commands.values():
        summary = command.get_short_help_str(80 - 6 - max(map(len, main.commands)))
        assert not summary.endswith("..."), command.name
