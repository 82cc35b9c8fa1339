"""Every interleaving of two and three processes over the real identity service, to a stated bound."""

import argparse
import itertools
import logging
import time
from collections.abc import Sequence

from tests.support.interleavings import Bounds, Scenario, explore, replay
from tests.support.protocol_bugs import BUGS

_INITIAL = ("absent", "mapped", "marked")
_REQUESTS = ("create", "delete", "token", "sign-out")


def scenarios(processes: int, *, at_once: bool = False) -> list[Scenario]:
    """Each choice of one request a process, from each beginning; `at_once` adds those of one process with two."""
    lanes = (
        [*_REQUESTS, *map("+".join, itertools.combinations_with_replacement(_REQUESTS, 2))] if at_once else _REQUESTS
    )
    chosen = list(itertools.combinations_with_replacement(lanes, processes))
    return [Scenario(f"{initial}: {' | '.join(each)}") for initial in _INITIAL for each in chosen]


def main(arguments: Sequence[str]) -> int:
    """See `--help`. There is no seed: nothing is drawn."""
    parser = argparse.ArgumentParser(prog="soak explore", description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--faults", type=int, default=2, help="calls of one run that may go wrong")
    parser.add_argument("--crashes", type=int, default=1, help="crashes in one run")
    parser.add_argument("--wakes", type=int, default=1, help="how often the background task may wake early")
    parser.add_argument("--at-once", action="store_true", help="also two requests at once in one process")
    parser.add_argument("--at-most", type=int, default=200_000, help="runs for each scenario")
    parser.add_argument("--minutes", type=float, default=30.0, help="begin no further scenario after so long")
    parser.add_argument("--scenario", help='only this one, such as "mapped: create,token | delete"')
    parser.add_argument("--schedule", help="only this run of it, as a violation prints it")
    parser.add_argument("--bug", choices=sorted(BUGS), help="explore this mistake, where it shows, not the service")
    given = parser.parse_args(arguments)
    logging.disable(logging.CRITICAL)
    bounds = Bounds(given.faults, given.crashes, given.wakes)
    subject = None
    chosen = [Scenario(given.scenario)] if given.scenario else scenarios(given.processes, at_once=given.at_once)
    if given.bug:
        subject, scenario, bounds = BUGS[given.bug]
        chosen = [Scenario(given.scenario) if given.scenario else scenario]
    print(f"at most {bounds.faults} faults, {bounds.crashes} crashes, {bounds.wakes} early wakes in a run")
    if given.schedule:
        violation = replay(chosen[0], bounds, tuple(int(each) for each in given.schedule.split(".")), subject)
        print(violation or "This run breaks nothing.")
        return int(violation is not None)
    runs = states = cut = 0
    begun = time.monotonic()
    for number, scenario in enumerate(chosen):
        if time.monotonic() - begun > given.minutes * 60:
            print(f"{len(chosen) - number} of {len(chosen)} scenarios were not begun: the time is up")
            break
        explored = explore(scenario, bounds, subject, at_most=given.at_most)
        runs, states, cut = runs + explored.runs, states + explored.states, cut + (not explored.complete)
        print(
            f"{scenario.text:<40} {explored.runs:>7} runs {explored.states:>7} states, longest {explored.deepest}"
            + ("" if explored.complete else ", cut off"),
            flush=True,
        )
        if explored.violation is not None:
            print(explored.violation)
            return 1
    seconds = time.monotonic() - begun
    print(f"{runs} runs, {states} states, {cut} scenarios cut off, {seconds:.0f} s: no interleaving breaks the rule")
    return 0
