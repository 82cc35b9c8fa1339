"""The 1:1 rule in every order of calls, up to a bound. Larger bounds: make soak ARGS="explore --help"."""

import pytest

from soak.explore import scenarios
from tests.support.interleavings import Bounds, Scenario, explore, replay
from tests.support.protocol_bugs import BUGS

TWO = [scenario for scenario in scenarios(2) if not scenario.signs_out]
THREE = [
    scenario
    for scenario in scenarios(3)
    if not scenario.signs_out and (scenario.initial == "absent" or (scenario.initial == "mapped" and scenario.creates))
]
SIGN_OUTS = [scenario for scenario in scenarios(2) if scenario.signs_out] + [
    Scenario("mapped: sign-out | sign-out | token"),
    Scenario("mapped: sign-out,sign-out | token,token"),
    Scenario("mapped: delete,create | sign-out,token"),
]
DISTURBED_SIGN_OUTS = [Scenario("mapped: token | sign-out"), Scenario("mapped: sign-out | sign-out")]

RESOLVES = [
    Scenario("absent: create | resolve"),
    Scenario("mapped: delete | resolve"),
    Scenario("mapped: delete | resolve,resolve"),
    Scenario("marked: create | resolve"),
]


def named(scenario: Scenario) -> str:
    return scenario.text


@pytest.mark.parametrize("scenario", TWO, ids=named)
@pytest.mark.parametrize("bounds", [Bounds(faults=1, crashes=0), Bounds(faults=0, crashes=1)], ids=["fault", "crash"])
def test_two_processes_keep_the_rule_in_every_interleaving_with_one_fault_or_one_crash(
    scenario: Scenario, bounds: Bounds
) -> None:
    explored = explore(scenario, bounds)
    assert explored.complete
    assert explored.violation is None, str(explored.violation)


@pytest.mark.parametrize("scenario", [*THREE, Scenario("mapped: delete,create | resolve | resolve")], ids=named)
def test_three_processes_keep_the_rule_in_every_interleaving_without_faults(scenario: Scenario) -> None:
    explored = explore(scenario, Bounds(faults=0, crashes=0, wakes=0))
    assert explored.complete
    assert explored.violation is None, str(explored.violation)


@pytest.mark.parametrize("scenario", SIGN_OUTS, ids=named)
def test_no_token_from_before_a_sign_out_is_answered_after_it_in_any_interleaving(scenario: Scenario) -> None:
    explored = explore(scenario, Bounds(faults=0, crashes=0, wakes=0))
    assert explored.complete
    assert explored.violation is None, str(explored.violation)


@pytest.mark.parametrize("scenario", DISTURBED_SIGN_OUTS, ids=named)
@pytest.mark.parametrize("bounds", [Bounds(faults=1, crashes=0), Bounds(faults=0, crashes=1)], ids=["fault", "crash"])
def test_nor_with_one_fault_or_one_crash(scenario: Scenario, bounds: Bounds) -> None:
    explored = explore(scenario, bounds)
    assert explored.complete
    assert explored.violation is None, str(explored.violation)


@pytest.mark.parametrize("scenario", RESOLVES, ids=named)
@pytest.mark.parametrize("bounds", [Bounds(faults=1, crashes=0), Bounds(faults=0, crashes=1)], ids=["fault", "crash"])
def test_no_colleague_is_told_an_identity_whose_deletion_has_begun_in_any_interleaving(
    scenario: Scenario, bounds: Bounds
) -> None:
    explored = explore(scenario, bounds)
    assert explored.complete
    assert explored.violation is None, str(explored.violation)


@pytest.mark.parametrize("bug", BUGS)
def test_a_mistake_in_the_protocol_is_found_and_its_schedule_repeats_it(bug: str) -> None:
    subject, scenario, bounds = BUGS[bug]
    violation = explore(scenario, bounds, subject).violation
    assert violation is not None
    assert "schedule" in str(violation)
    assert replay(scenario, bounds, violation.schedule, subject) == violation


@pytest.mark.parametrize("bug", BUGS)
def test_the_service_has_none_of_these_mistakes(bug: str) -> None:
    _, scenario, bounds = BUGS[bug]
    assert explore(scenario, bounds, at_most=1_000).violation is None
