"""Another process at the same SQLite file, driven by tests over its standard streams.

race PATH NAME   prints `ready`, waits for a line, then creates mappings for the same users as its rivals, all at once;
                 prints as JSON what each call ended with: `{subject: acs user id that the user has}`
fill PATH        creates mappings without end, several at once, and prints each subject whose create was answered
back-up PATH BEFORE AFTER   creates so many mappings, copies what is there to PATH.backup, creates more, prints `ready`
full PATH        makes the file, fills its file system, opens the file again and prints the error
plainly PATH     opens the file and prints the error, if any
open PATH        gives up the superuser's rights, opens the file and prints the error
"""

import asyncio
import contextlib
import itertools
import json
import os
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

from storage.mapping import MappingExists, StoreMisconfigured, UserKey
from storage.sqlite import open_sqlite_store
from tests.support.acs_ids import acs_id

USERS = 60
NOBODY = 65534


async def race(path: Path, name: str) -> None:
    store = await open_sqlite_store(path, busy_timeout=60)
    say("ready")
    await asyncio.to_thread(sys.stdin.readline)

    async def create(subject: str) -> tuple[str, str]:
        try:
            created = await store.create(UserKey("tenant", subject), acs_id(f"{name}-{subject}"))
        except MappingExists as conflict:
            return subject, conflict.existing.acs_user_id
        return subject, created.acs_user_id

    ended = await asyncio.gather(*(create(f"user-{n}") for n in range(USERS)))
    say(json.dumps(dict(ended)))
    await store.aclose()


async def fill(path: Path) -> None:
    store = await open_sqlite_store(path)
    numbers = itertools.count()

    async def create_one_after_another() -> None:
        for n in numbers:
            await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}"))
            say(f"user-{n}")

    await asyncio.gather(*(create_one_after_another() for _ in range(4)))


async def open_without_rights(path: Path) -> None:
    await asyncio.to_thread(path.as_uri)  # Imports what is needed while this user still may read it.
    if os.geteuid() == 0:
        os.seteuid(NOBODY)
    await open_plainly(path)


async def back_up(path: Path, before: int, after: int) -> None:
    store = await open_sqlite_store(path)
    for n in range(before):
        await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}"))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(f"{path}.backup")) as backup:
        source.backup(backup)
    for n in range(before, before + after):
        await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}"))
    say("ready")
    await asyncio.Event().wait()


async def full(path: Path) -> None:
    await (await open_sqlite_store(path)).aclose()
    await asyncio.to_thread(fill_the_disk, path.with_name("filling"))
    await open_plainly(path)


async def open_plainly(path: Path) -> None:
    try:
        store = await open_sqlite_store(path)
    except StoreMisconfigured as error:
        say(str(error))
    else:
        await store.aclose()


def fill_the_disk(path: Path) -> None:
    with contextlib.suppress(OSError), path.open("wb", buffering=0) as file:
        while file.write(b"x" * 512):
            pass


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["race", path, name]:
            asyncio.run(race(Path(path), name))
        case ["fill", path]:
            asyncio.run(fill(Path(path)))
        case ["back-up", path, before, after]:
            asyncio.run(back_up(Path(path), int(before), int(after)))
        case ["full", path]:
            asyncio.run(full(Path(path)))
        case ["plainly", path]:
            asyncio.run(open_plainly(Path(path)))
        case ["open", path]:
            asyncio.run(open_without_rights(Path(path)))
