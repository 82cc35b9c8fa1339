"""`acs-auth rekey`: each mapping goes to the new user of its pair and to nobody else, whatever interrupts it."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.acs.interface import AcsUnavailable
from quart_app.operations.rekeying import RekeyOptions, UnusablePairs, read_pairs, rekey
from storage.mapping import IdentityMapping, MappingStore, StoreUnavailable, UnreadableMapping, UserKey
from tests.quart_app.cli.conftest import AcsAuth
from tests.quart_app.cli.test_export_all import opened_cosmos
from tests.support.acs_ids import acs_id
from tests.support.memory_acs import MemoryAcsClient
from tests.support.memory_store import MemoryMappingStore
from tests.support.scripted import FailBefore
from tests.support.service_process import acs_auth as start_acs_auth
from tests.support.service_process import environment_for

OLD, NEW = "https://old.example/v2", "https://new.example/v2"
LONG_AGO = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)


def pairs_file(directory: Path, *subjects: tuple[str, str]) -> str:
    path = directory / "subjects.csv"
    path.write_text("\n".join(["old_subject,new_subject", *(",".join(pair) for pair in subjects)]) + "\n")
    return str(path)


def command(subjects: str, *more: str) -> tuple[str, ...]:
    return ("rekey", "--from-issuer", OLD, "--to-issuer", NEW, "--subjects", subjects, *more)


async def test_a_mapping_keeps_identity_creation_and_sign_out(
    sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    mapping = await sqlite_store.create(UserKey(OLD, "a"), acs_id("a"), LONG_AGO)
    await sqlite_store.change(mapping, signed_out_at=LONG_AGO)
    subjects = pairs_file(tmp_path, ("a", "A"), ("nobody", "NOBODY"))
    dry = await acs_auth(*command(subjects, "--dry-run", "--json"))
    assert (dry.exit_code, json.loads(dry.stdout)["moved"]) == (0, 1)
    assert await sqlite_store.get(UserKey(NEW, "A")) is None
    result = await acs_auth(*command(subjects, "--json"))
    report = json.loads(result.stdout)
    assert (result.exit_code, report["moved"], report["absent"]) == (0, 1, 1)
    assert await sqlite_store.get(UserKey(OLD, "a")) is None
    moved = await sqlite_store.get(UserKey(NEW, "A"))
    assert moved is not None
    assert (moved.acs_user_id, moved.created_at, moved.signed_out_at) == (acs_id("a"), LONG_AGO, LONG_AGO)
    again = json.loads((await acs_auth(*command(subjects, "--json"))).stdout)
    assert (again["moved"], again["moved_before"], again["complete"]) == (0, 1, True)


async def test_what_can_not_be_moved_is_left_and_named_in_the_report_only(
    sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    await sqlite_store.create(UserKey(OLD, "taken"), acs_id("1"))
    await sqlite_store.create(UserKey(NEW, "TAKEN"), acs_id("2"))
    await sqlite_store.change(await sqlite_store.create(UserKey(OLD, "leaving"), acs_id("3")), deleting=True)
    await sqlite_store.create(UserKey(OLD, "sharing"), acs_id("4"))
    await sqlite_store.create(UserKey(OLD, "stranger"), acs_id("4"))
    before = [each async for each in sqlite_store.mappings()]
    subjects = pairs_file(tmp_path, ("taken", "TAKEN"), ("leaving", "LEAVING"), ("sharing", "SHARING"))
    report = tmp_path / "report.json"
    result = await acs_auth(*command(subjects, "--report", str(report)))
    assert result.exit_code == 3
    assert "taken" not in result.output.lower()
    outcomes = {each["subject"]: each["outcome"] for each in json.loads(report.read_text())["mappings"]}
    assert outcomes == {"taken": "conflicting", "leaving": "in_deletion", "sharing": "shared"}
    assert [each async for each in sqlite_store.mappings()] == before


async def test_killed_twice_it_ends_exact(local_azure: LocalAzure, tmp_path: Path) -> None:
    count = 60
    async with aclosing(await opened_cosmos(local_azure)) as cosmos:
        for number in range(count):
            await cosmos.create(UserKey(OLD, f"old {number}"), acs_id(str(number)), LONG_AGO)
        subjects = pairs_file(tmp_path, *((f"old {number}", f"new {number}") for number in range(count)))
        environment = environment_for(local_azure, tmp_path, "cosmos")
        faults = local_azure.cosmos.faults
        both = []
        for operation in ("delete_item", "create_item"):
            before = faults.counts[operation]
            faults.script(operation, *[Fault()] * 15, Fault(hang=True, times=None))
            process = await start_acs_auth(environment, *command(subjects, "--concurrency", "3"))
            await faults.arrived(operation, before + 18)
            process.kill()
            await process.communicate()
            assert process.returncode == -9
            faults.clear()
            held = {(each.user, each.acs_user_id) async for each in cosmos.mappings()}
            both.append(len(held) - count)
            assert {identity for _, identity in held} == {acs_id(str(number)) for number in range(count)}
        assert both[0] == 3, "three moves were cut between creating and removing"
        process = await start_acs_auth(environment, *command(subjects, "--json"))
        out, err = await process.communicate()
        assert process.returncode == 0, err
        report = json.loads(out)
        assert report["moved"] + report["moved_before"] == count
        found = [each async for each in cosmos.mappings()]
        assert all(isinstance(each, IdentityMapping) and each.created_at == LONG_AGO for each in found)
        assert {(each.user, each.acs_user_id) for each in found} == {
            (UserKey(NEW, f"new {number}"), acs_id(str(number))) for number in range(count)
        }
        assert len(found) == count


class Killed(BaseException):
    """The process is gone: nothing catches this."""


class Fragile(MemoryMappingStore):
    """A store whose process is killed, or whose answer is lost, at chosen writes; before or after they are made."""

    def __init__(self) -> None:
        super().__init__()
        self.plan: dict[int, tuple[bool, bool]] = {}
        self.writes = 0

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        after = self._strike()
        made = await super().create(user, acs_user_id, created_at)
        after()
        return made

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        after = self._strike()
        await super().remove(stored)
        after()

    def _strike(self) -> Callable[[], None]:
        self.writes += 1
        planned = self.plan.get(self.writes)
        written = planned is not None and planned[1]
        error = None if planned is None else Killed() if planned[0] else StoreUnavailable()

        def strike() -> None:
            if error is not None:
                raise error

        if not written:
            strike()
        return strike if written else lambda: None


@settings(derandomize=True, deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(
    olds=st.sets(st.integers(0, 7)),
    news=st.sets(st.integers(0, 7), max_size=2),
    deleting=st.sets(st.integers(0, 7), max_size=2),
    pairs=st.lists(st.integers(0, 7), unique=True),
    plan=st.dictionaries(st.integers(1, 20), st.tuples(st.booleans(), st.booleans()), max_size=5),
    concurrency=st.integers(1, 3),
)
async def test_no_interruption_loses_doubles_or_mixes_up_an_identity(
    olds: set[int],
    news: set[int],
    deleting: set[int],
    pairs: list[int],
    plan: dict[int, tuple[bool, bool]],
    concurrency: int,
) -> None:
    store = Fragile()
    for number in sorted(olds):
        mapping = await store.create(UserKey(OLD, f"old {number}"), acs_id(f"o{number}"))
        await store.change(mapping, deleting=number in deleting)
    for number in sorted(news):
        await store.create(UserKey(NEW, f"new {number}"), acs_id(f"n{number}"))
    movable = {number for number in pairs if number in olds - news - deleting}
    expected = {
        **{UserKey(OLD, f"old {number}"): acs_id(f"o{number}") for number in olds - movable},
        **{UserKey(NEW, f"new {number}"): acs_id(f"o{number}") for number in movable},
        **{UserKey(NEW, f"new {number}"): acs_id(f"n{number}") for number in news},
    }
    options = RekeyOptions(OLD, NEW, {f"old {number}": f"new {number}" for number in pairs}, concurrency=concurrency)
    store.plan, store.writes = plan, 0
    for _ in range(len(plan) + 1):
        try:
            await rekey(store, MemoryAcsClient(), options)
        except* Killed:
            pass
        held = {user: mapping.acs_user_id for user, mapping in store.stored.items()}
        assert set(held.values()) == set(expected.values()), "an identity was lost or made"
        for user, identity in held.items():
            own = user.subject.split()[1]
            assert identity in (acs_id(f"o{own}"), acs_id(f"n{own}")), "it is somebody else's"
    assert {user: mapping.acs_user_id for user, mapping in store.stored.items()} == expected


class TakenMeanwhile(MemoryMappingStore):
    """The old mapping goes away as soon as the new one is made."""

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        made = await super().create(user, acs_user_id, created_at)
        if user.issuer == NEW:
            await self.remove(self.stored[UserKey(OLD, "a")])
        return made


async def test_a_user_who_deletes_meanwhile_is_not_brought_back() -> None:
    store, acs = TakenMeanwhile(), MemoryAcsClient()
    identity = await acs.create_identity()
    await store.create(UserKey(OLD, "a"), identity)
    await acs.delete_identity(identity)
    report = await rekey(store, acs, RekeyOptions(OLD, NEW, {"a": "A"}))
    assert (store.stored, report.complete) == ({}, False)


async def test_two_runs_at_the_same_time_lose_nobody() -> None:
    store, acs = TakenMeanwhile(), MemoryAcsClient()  # by the other run
    identity = await acs.create_identity()
    await store.create(UserKey(OLD, "a"), identity)
    report = await rekey(store, acs, RekeyOptions(OLD, NEW, {"a": "A"}))
    assert {user: mapping.acs_user_id for user, mapping in store.stored.items()} == {UserKey(NEW, "A"): identity}
    assert report.complete


async def test_when_acs_does_not_say_which_of_both_it_was_nothing_is_removed() -> None:
    store, acs = TakenMeanwhile(), MemoryAcsClient()
    identity = await acs.create_identity()
    await store.create(UserKey(OLD, "a"), identity)
    acs.script("issue_token", FailBefore(AcsUnavailable()), None)
    report = await rekey(store, acs, RekeyOptions(OLD, NEW, {"a": "A"}))
    assert list(store.stored) == [UserKey(NEW, "A")]
    assert not report.complete


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        (["old,new"], "first line"),
        (["old_subject,new_subject", "a,A", "a,B"], "Line 3"),
        (["old_subject,new_subject", "a,A", "b,A"], "Line 3"),
        (["old_subject,new_subject", "a"], "Line 2"),
        (["old_subject,new_subject", "a,b,c"], "Line 2"),
    ],
)
def test_pairs_that_would_not_be_one_to_one_are_refused(lines: list[str], fault: str) -> None:
    with pytest.raises(UnusablePairs) as refused:
        read_pairs(lines)
    assert fault in refused.value.faults[0]


async def test_microsoft_graph_and_an_issuer_that_is_served_are_refused(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    subjects = await asyncio.to_thread(pairs_file, tmp_path, ("a", "A"))
    graph = await acs_auth(*command(subjects, "--store", "graph"))
    assert (graph.exit_code, "sealed" in graph.stderr) == (2, True)
    tenant = local_azure.entra.users["alex"].tenant_id
    served = await acs_auth("rekey", "--from-issuer", tenant, "--to-issuer", NEW, "--subjects", subjects)
    assert (served.exit_code, "served by these settings" in served.stderr) == (2, True)
