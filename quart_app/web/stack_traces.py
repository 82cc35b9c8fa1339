"""Where an error was raised, for developers: the service's own frames first, which a library's would bury."""

import traceback
from collections.abc import Iterator
from pathlib import Path

_OWN = tuple(Path(__file__).parents[2] / package for package in ("quart_app", "storage", "upstream"))


def stack_trace(error: BaseException) -> str:
    """What was raised, our own frames, the innermost first, and then the whole as Python writes it."""
    frames = [frame for each in _causes_first(error) for frame in reversed(traceback.extract_tb(each.__traceback__))]
    own = [
        f"{frame.filename}:{frame.lineno} in {frame.name}: {frame.line}\n"
        for frame in frames
        if any(Path(frame.filename).is_relative_to(package) for package in _OWN)
    ]
    return "".join([*traceback.format_exception_only(error), *own, "\n", *traceback.format_exception(error)])


def _causes_first(error: BaseException) -> Iterator[BaseException]:
    seen: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in seen:
        seen.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    return reversed(seen)
