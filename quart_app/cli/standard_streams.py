"""Standard input, output and error as a command needs them, however it was started."""

import errno
import io
import os
import sys
from typing import NoReturn, TextIO

_MODES = (os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)


def repair_standard_streams() -> None:
    """Replace closed ones with /dev/null, and let no character that a terminal lacks stop a command.

    libuv, and with it uvloop, takes descriptors 0 to 2 for the standard streams without looking.
    """
    for descriptor, mode in enumerate(_MODES):
        try:
            os.fstat(descriptor)
        except OSError:
            os.set_inheritable(os.open(os.devnull, mode), True)  # it takes the lowest number that is free: this one
    sys.stdin = sys.stdin or os.fdopen(0, "r", closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_unwritten(error: OSError) -> NoReturn:
    """End with status 1 and, if anybody can read it, a sentence: the output could not be printed."""
    _abandon(sys.stdout)
    try:
        print(f"The output can't be written ({error.strerror}).", file=sys.stderr, flush=True)
    except OSError:
        _abandon(sys.stderr)
    sys.exit(1)


def is_about_output(error: OSError) -> bool:
    """Whether it says that a stream has no room. Errors about files name them."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO) and error.filename is None


def _abandon(stream: TextIO) -> None:
    """Discard what is still in its buffer, instead of failing once more at the exit."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        return
