"""How much time and memory `acs-auth export --all` and `acs-auth rekey` need for a large SQLite file.

    python -m benchmark.leaving 1000000

makes the file in a temporary directory, runs each command as a process of its own, and prints its seconds and the most
memory that it held (ru_maxrss). Nothing of Azure is asked.
"""

import asyncio
import os
import resource
import sqlite3
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

from storage.sqlite import open_sqlite_store

ISSUER, NEXT_ISSUER = "https://old.example/v2", "https://new.example/v2"
RESOURCE = "00000000-0000-4000-8000-000000000000"


def main(mappings: int) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "mappings.sqlite"
        asyncio.run(_make(path))
        _fill(path, mappings)
        environment = _environment(path)
        output = Path(directory) / "export"
        for form in ("jsonl", "csv", "graph-chat"):
            measured = _measured(environment, "export", "--all", "--format", form, "--output", str(output))
            rows = sum(1 for _ in output.open("rb")) - (form != "jsonl")
            print(f"export {form}: {rows} mappings, {output.stat().st_size} bytes, {measured}", flush=True)
        subjects = Path(directory) / "subjects.csv"
        few = min(mappings, 2_000)
        lines = "".join(f"old {number},new {number}\n" for number in range(few))
        subjects.write_text(f"old_subject,new_subject\n{lines}")
        issuers = ("--from-issuer", ISSUER, "--to-issuer", NEXT_ISSUER)
        measured = _measured(environment, "rekey", *issuers, "--subjects", str(subjects), "--json")
        with sqlite3.connect(path) as database:
            (moved,) = database.execute("SELECT COUNT(*) FROM mappings WHERE issuer = ?", (NEXT_ISSUER,)).fetchone()
            (left,) = database.execute("SELECT COUNT(DISTINCT acs_user_id) FROM mappings").fetchone()
        print(f"rekey: {moved} of {mappings} mappings moved, {left} identities, {measured}")


async def _make(path: Path) -> None:
    await (await open_sqlite_store(path)).aclose()


def _fill(path: Path, mappings: int) -> None:
    rows = (
        (ISSUER, f"old {number}", f"8:acs:{RESOURCE}_{number:032x}", "2026-01-01T00:00:00+00:00")
        for number in range(mappings)
    )
    with sqlite3.connect(path) as database:
        database.executemany(
            "INSERT INTO mappings (issuer, subject, acs_user_id, created_at) VALUES (?, ?, ?, ?)", rows
        )
    database.close()


def _environment(path: Path) -> Mapping[str, str]:
    tenant = "7f2b5a10-3c4d-4e8f-9a61-0d5c8e2b7a11"
    return os.environ | {
        "ENTRA_TENANT_ID": tenant,
        "ENTRA_CLIENT_ID": tenant,
        "ACS_CONNECTION_STRING": "endpoint=https://localhost/;accesskey=bm9ib2R5",
        "STORAGE_BACKEND": "sqlite",
        "SQLITE_PATH": str(path),
    }


def _measured(environment: Mapping[str, str], *arguments: str) -> str:
    command = (sys.executable, "-m", "quart_app.cli", *arguments)
    started = time.monotonic()
    with Path(os.devnull).open("wb") as nowhere:
        child = os.posix_spawn(
            sys.executable, command, environment, file_actions=[(os.POSIX_SPAWN_DUP2, nowhere.fileno(), 1)]
        )
        _, status, used = os.wait4(child, 0)
    seconds = time.monotonic() - started
    if os.waitstatus_to_exitcode(status):
        sys.exit(f"{arguments[0]} ended with {os.waitstatus_to_exitcode(status)}.")
    return f"{seconds:.0f} s, at most {_mebibytes(used)} MiB"


def _mebibytes(used: resource.struct_rusage) -> int:
    return used.ru_maxrss // 1024  # in KiB on Linux


if __name__ == "__main__":
    main(int(sys.argv[1]))
