"""Tables that `make test` prints at its end, made from what the tests themselves recorded."""

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Protocol


class Report(Protocol):
    """The part of a pytest report that is needed."""

    nodeid: str
    user_properties: list[tuple[str, object]]


GROUPS = {
    "TestPlainUse": "plain use",
    "TestConcurrency": "concurrency",
    "TestFaults": "faults",
    "TestStateMachine": "state machine",
}


def contract_matrix(passed: Iterable[Report]) -> list[str]:
    """Store by group: how many tests of the storage contract passed."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for report in passed:
        path, *names = report.nodeid.split("::")
        if path.startswith("tests/storage/") and len(names) == 2 and names[0] in GROUPS:
            counts[path.removeprefix("tests/storage/test_").removesuffix(".py")][names[0]] += 1
    if not counts:
        return []
    lines = [f"{'store':<10}" + "".join(f"{title:>15}" for title in GROUPS.values())]
    for store, groups in sorted(counts.items()):
        lines.append(f"{store:<10}" + "".join(f"{groups[group]:>15}" for group in GROUPS))
    return lines


def wire_counts(passed: Iterable[Report]) -> list[str]:
    """Call by fault: requests on the wire and seconds."""
    cells: dict[str, dict[str, str]] = defaultdict(dict)
    for report in passed:
        for name, value in report.user_properties:
            if name == "wire_count":
                call, fault, requests, seconds = str(value).split("|")
                cells[call][fault] = f"{requests} ({seconds} s)"
    if not cells:
        return []
    faults = list(dict.fromkeys(fault for row in cells.values() for fault in row))
    faults.sort(key=lambda fault: (not fault[0].isdigit(), fault))
    lines = [f"{'call':<18}" + "".join(f"{fault:>18}" for fault in faults)]
    lines += [
        f"{call:<18}" + "".join(f"{row.get(fault, ''):>18}" for fault in faults) for call, row in sorted(cells.items())
    ]
    return lines


def attack_summary(reports: Iterable[Report]) -> list[str]:
    """How the attack corpus and its controls ended at each door, and what live traffic saw; also of failed tests."""
    recorded = [(name, str(value)) for report in reports for name, value in report.user_properties]
    attacks = Counter(value for name, value in recorded if name == "attack")
    controls = Counter(value for name, value in recorded if name == "control")
    lines = [f"{value}" for name, value in recorded if name == "traffic"]
    doors = sorted({value.split()[0] for value in attacks})
    return [_at_door(door, attacks, controls) for door in doors] + lines


def _at_door(door: str, attacks: Counter[str], controls: Counter[str]) -> str:
    sent, good = (sum(count for name, count in each.items() if name.split()[0] == door) for each in (attacks, controls))
    ends = ("refused", "allowed by its rules", "accepted")
    counted = ", ".join(f"{end}: {attacks[f'{door} {end}']}" for end in ends)
    accepted = f"good requests accepted: {controls[f'{door} accepted']} of {good}"
    return f"door {door}: attacks sent: {sent}, {counted}; {accepted}"


def documents_summary(passed: Iterable[Report]) -> list[str]:
    """What the tests of the documents looked at, one line each."""
    return [str(value) for report in passed for name, value in report.user_properties if name == "documents"]
