"""One run at a time on a state directory, and the record of it."""

import os
from pathlib import Path

import pytest

from local_azure.cli.stand_ins import find
from local_azure.environment import Ports
from local_azure.run_record import AlreadyRunning, only_run, read_record, require_no_run, write_record

PORTS = Ports(1, 2, 3, 4)


def test_a_run_keeps_others_away_until_it_ends(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    require_no_run(directory)
    assert not directory.exists()
    with only_run(directory):
        write_record(directory, PORTS)
        with pytest.raises(AlreadyRunning, match=f"{directory} .process {os.getpid()}.*--state-dir"):
            require_no_run(directory)
        with pytest.raises(AlreadyRunning), only_run(directory):
            pass
    require_no_run(directory)
    with only_run(directory):
        pass


def test_a_record_lasts_as_long_as_its_run(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    with only_run(tmp_path):
        write_record(tmp_path, PORTS)
        record = read_record(tmp_path)
        assert record is not None
        assert (record.process, record.ports) == (os.getpid(), PORTS)
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"process": 1, "ports": {"x": 1}}'])
def test_a_damaged_record_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    assert read_record(tmp_path) is None


def test_commands_find_the_ports_of_the_run_unless_told_others(tmp_path: Path) -> None:
    assert find("graph", None, tmp_path).port == 5002
    write_record(tmp_path, PORTS)
    assert find("graph", None, tmp_path).port == PORTS.graph
    assert find("graph", 7, tmp_path).port == 7
