"""The key by which a local service seals the mappings that it keeps in the Graph stand-in."""

import base64
import os
import secrets
from pathlib import Path


def seal_key(directory: Path) -> str:
    """The key in base64, made at the first call and kept in the state directory (mode 0600)."""
    path = directory / "graph-seal-key"
    try:
        made = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_text(encoding="ascii").strip()
    key = base64.b64encode(secrets.token_bytes(32)).decode()
    with os.fdopen(made, "w", encoding="ascii") as file:
        file.write(f"{key}\n")
    return key
