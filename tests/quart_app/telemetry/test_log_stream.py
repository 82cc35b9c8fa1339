"""Log lines go out in order while somebody reads, and hold up nobody while nobody does."""

import os
import pty
import select
import threading
from collections.abc import Iterator

import pytest

from quart_app.telemetry.log_stream import LogStream

LINE = "x" * 1000 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for descriptor in (reading, writing):
        try:
            os.close(descriptor)
        except OSError:
            continue


def read_all(descriptor: int, ends_with: bytes) -> bytes:
    found = b""
    while not found.endswith(ends_with):
        found += os.read(descriptor, 65536)
    return found


def test_lines_are_written_at_once_while_somebody_reads(pipe: tuple[int, int]) -> None:
    stream = LogStream(pipe[1])
    threads = threading.active_count()
    for number in range(10):
        stream.write(f"{number}\n")
        assert os.read(pipe[0], 100) == f"{number}\n".encode()
    assert threading.active_count() == threads


def test_what_nobody_reads_is_queued_dropped_and_told(pipe: tuple[int, int]) -> None:
    stream = LogStream(pipe[1], longest_queue=50)
    for _ in range(1000):
        stream.write(LINE)
    assert not stream.drain(0)
    assert 0 < stream.dropped < 1000
    told = f"{stream.dropped} log lines were dropped, because nobody read them in time.\n".encode()
    found = read_all(pipe[0], told)
    assert found.count(LINE.encode()) == 1000 - stream.dropped
    assert stream.drain(30)
    stream.write("after\n")
    assert read_all(pipe[0], b"after\n") == b"after\n"


def test_the_order_is_kept(pipe: tuple[int, int]) -> None:
    stream = LogStream(pipe[1])
    for number in range(500):
        stream.write(f"{number} {LINE}")
    found = read_all(pipe[0], f"499 {LINE}".encode()).splitlines()
    assert [int(line.split()[0]) for line in found] == list(range(500))


def test_where_nobody_can_tell_whether_the_reader_keeps_up_every_line_is_queued(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(select, "poll")  # as on Windows
    stream = LogStream(pipe[1])
    for number in range(10):
        stream.write(f"{number}\n")
    assert read_all(pipe[0], b"9\n").split() == [str(number).encode() for number in range(10)]
    assert stream.drain(30)


def test_it_knows_whether_a_person_reads(pipe: tuple[int, int]) -> None:
    controlling, terminal = pty.openpty()
    try:
        assert LogStream(terminal).isatty()
    finally:
        os.close(controlling)
        os.close(terminal)
    assert not LogStream(pipe[1]).isatty()


def test_a_long_line_is_written_whole(pipe: tuple[int, int]) -> None:
    stream = LogStream(pipe[1])
    stream.write("y" * 200_000 + "\n")
    assert len(read_all(pipe[0], b"\n")) == 200_001


def test_a_reader_that_is_gone_or_a_full_disk_is_no_error(pipe: tuple[int, int]) -> None:
    stream = LogStream(pipe[1])
    os.close(pipe[0])
    stream.write("lost\n")
    full = os.open("/dev/full", os.O_WRONLY)
    LogStream(full).write("lost\n")
    os.close(full)
    stream.drain(30)
    assert stream.dropped == 1
