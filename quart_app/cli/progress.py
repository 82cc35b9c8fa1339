"""How far a long command is, on standard error: a bar on a terminal, otherwise a line now and then."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import click

from upstream.errors import told


class Bar(Protocol):
    """What shows one line of text."""

    def __call__(self, text: str) -> None: ...


class Progress:
    """Counts what is done and the waits in between; `waits` is how often the command had to wait for an upstream.

    `step` names what is being done, such as `looked at`.
    """

    def __init__(self, bar: Bar | None) -> None:
        self._bar = bar
        self._shown = ""
        self.waits = 0

    def waited(self, error: Exception, attempt: int, seconds: float) -> None:
        """Note a wait: see `RetryPolicy.on_retry`. Without a bar, each hundredth is printed with its cause."""
        self.waits += 1
        if self._bar is not None:
            self._show(f"waiting: {told(error)}")
        elif self.waits % _WAITS_A_LINE == 1:
            click.echo(f"Waiting and trying again ({self.waits} so far): {told(error)}", err=True)

    def done(self, count: int, step: str, trouble: int) -> None:
        """Note that `count` mappings are done, `trouble` of them with trouble."""
        if self._bar is not None:
            self._show(f"{count} {step}, {trouble} in trouble, {self.waits} waits")
        elif count and count % _MAPPINGS_A_LINE == 0:
            click.echo(f"{count} mappings {step}, {trouble} in trouble, {self.waits} waits", err=True)

    def _show(self, text: str) -> None:
        if self._bar is not None and text != self._shown:
            self._shown = text
            self._bar(text)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """What shows the progress; it disappears from a terminal at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True)
    if not console.is_terminal:
        yield Progress(None)
        return
    columns: tuple[Any, ...] = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=console, transient=True) as bars:
        task = bars.add_task("reading", total=None)
        yield Progress(lambda text: bars.update(task, description=text))


_MAPPINGS_A_LINE = 1000
_WAITS_A_LINE = 100
