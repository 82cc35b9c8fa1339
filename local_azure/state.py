"""What the stand-ins remember, in one directory: a restart keeps users, identities and mappings together."""

import sqlite3
from pathlib import Path


class State:
    """One SQLite file that all stand-ins share; each creates its own tables (`CREATE TABLE IF NOT EXISTS`)."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.database = sqlite3.connect(directory / "local-azure.sqlite", isolation_level=None)
        self.database.row_factory = sqlite3.Row
        self.database.execute("PRAGMA journal_mode=WAL")
        self.database.execute("PRAGMA synchronous=NORMAL")

    def close(self) -> None:
        """Close the file."""
        self.database.close()
