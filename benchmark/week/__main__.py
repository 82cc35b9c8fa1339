"""`python -m benchmark.week`: prints the tables as Markdown."""

import asyncio
import dataclasses
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from benchmark.week.policies import POLICIES, Policy
from benchmark.week.report import Row, after_a_loss, by_policy, plot
from benchmark.week.simulation import Size, simulate
from local_azure.certificates import LocalAuthority
from local_azure.environment import LocalAzure, Ports

USERS = 10_000_000
SMALL = 1 / 10_000
"""The week with limits, because what is turned away comes again and again; the one that runs over the wire, too."""
_DIRECTORY = "BENCHMARK_WEEK_DIRECTORY"
"""Names the state of the stand-ins to the process that this command starts for them."""


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--share", type=click.FloatRange(0.0001, 0.01), default=0.001, show_default=True)
@click.option("--seed", type=int, default=1, show_default=True, help="Of every draw.")
@click.option("--plot", "path", type=click.Path(path_type=Path), help="Write the plot here, as SVG.")
@click.option("--over-the-wire", is_flag=True, help="Run one policy's small week against the stand-ins as well.")
@click.option("--policy", type=click.IntRange(0, len(POLICIES) - 1), default=0, help="Which, from 0.")
@click.option("--days", type=click.IntRange(1, 7), default=7, help="How much of the week, over the wire.")
def main(*, share: float, seed: int, path: Path | None, over_the_wire: bool, policy: int, days: int) -> None:
    """Simulate a week of ten million users under each policy, of whom SHARE is drawn, and print the figures.

    With --over-the-wire, live one policy's week of a thousand users twice, in the model and by the service's own parts
    against the limited stand-ins, and print both. It ends with status 1 when they differ by more than 10%.
    """
    if over_the_wire:
        sys.exit(_compare(POLICIES[policy], Size(round(USERS * SMALL), SMALL, days, seed)))
    rows = []
    for each in POLICIES:
        click.echo(f"{time.strftime('%H:%M:%S')} {each.name}", err=True)
        size, small = Size(round(USERS * share), share, seed=seed), Size(round(USERS * SMALL), SMALL, seed=seed)
        lifted = dataclasses.replace(each, limits=each.limits.lifted())
        rows.append(Row(each, simulate(lifted, size), size, simulate(each, small)))
    click.echo("\n".join([*by_policy(rows), "", *after_a_loss(rows)]))
    if path is not None:
        path.write_text(plot(rows))


def _compare(policy: Policy, size: Size) -> int:
    directory = os.environ.get(_DIRECTORY)
    if directory is None:  # whom to trust is read when modules are imported, so it takes a process of its own
        with tempfile.TemporaryDirectory(prefix="acs-auth-week-") as made:
            trust = str(LocalAuthority(Path(made)).certificate_path)
            variables = {**os.environ, _DIRECTORY: made, "SSL_CERT_FILE": trust, "REQUESTS_CA_BUNDLE": trust}
            command = (sys.executable, "-m", "benchmark.week", *sys.argv[1:])
            return subprocess.run(command, env=variables, check=False).returncode
    from benchmark.week.agreement import agreement

    logging.disable(logging.WARNING)

    async def run() -> bool:
        async with LocalAzure(Path(directory), Ports(0, 0, 0, 0)) as azure:
            lines, agrees = await agreement(policy, size, azure)
            click.echo("\n".join(lines))
            return agrees

    return 0 if asyncio.run(run()) else 1


if __name__ == "__main__":
    main()
