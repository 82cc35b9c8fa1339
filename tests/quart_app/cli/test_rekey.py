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
from quart_app.acs.interface import AcsUnavailable, IdentityNotOwned
from quart_app.operations.rekeying import Move, RekeyOptions, UnusablePairs, read_pairs, rekey
from storage.mapping import (
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingStore,
    StoreUnavailable,
    Unreadable,
    UnreadableMapping,
    UserKey,
)
from tests.quart_app.cli.conftest import AcsAuth
from tests.quart_app.cli.test_export_all import opened_cosmos
from tests.support.acs_ids import acs_id
from tests.support.memory_acs import MemoryAcsClient
from tests.support.memory_store import MemoryMappingStore
from tests.support.scripted import FailAfter, FailBefore, ScriptedStore
from tests.support.service_process import acs_auth as start_acs_auth
from tests.support.service_process import environment_for

OLD, NEW = "https://old.example/v2", "https://new.example/v2"
TENANT = "0d5c8e2b-3c4d-4e8f-9a61-7f2b5a107a11"
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


async def test_an_identity_of_another_resource_was_not_deleted_here_so_the_new_user_keeps_it() -> None:
    store, acs = TakenMeanwhile(), MemoryAcsClient()
    await store.create(UserKey(OLD, "a"), acs_id("foreign"))
    acs.script("issue_token", FailBefore(IdentityNotOwned()))
    report = await rekey(store, acs, RekeyOptions(OLD, NEW, {"a": "A"}))
    assert list(store.stored) == [UserKey(NEW, "A")]
    assert report.moves == {Move.MOVED_BEFORE: 1}


async def test_a_new_user_who_signs_up_meanwhile_keeps_the_identity_of_their_own() -> None:
    class SignsUpMeanwhile(MemoryMappingStore):
        async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
            if user.issuer == NEW:
                await super().create(user, acs_id("own"))
            return await super().create(user, acs_user_id, created_at)

    store = SignsUpMeanwhile()
    await store.create(UserKey(OLD, "a"), acs_id("a"))
    report = await rekey(store, MemoryAcsClient(), RekeyOptions(OLD, NEW, {"a": "A"}))
    assert {user.subject: mapping.acs_user_id for user, mapping in store.stored.items()} == {
        "a": acs_id("a"),
        "A": acs_id("own"),
    }
    assert [(each.move, each.reason) for each in report.trouble] == [
        (Move.CONFLICTING, "the new user has another identity")
    ]


async def test_a_move_that_another_run_makes_at_the_same_time_is_finished_once() -> None:
    store = ScriptedStore(MemoryMappingStore())
    mapping = await store.create(UserKey(OLD, "a"), acs_id("a"))
    copy = IdentityMapping(UserKey(NEW, "A"), mapping.acs_user_id, mapping.created_at, deleting=False, version="2")
    store.script("create", FailAfter(MappingExists(copy)))  # it was the other run that made it
    report = await rekey(store, MemoryAcsClient(), RekeyOptions(OLD, NEW, {"a": "A"}))
    assert {each.user async for each in store.mappings()} == {UserKey(NEW, "A")}
    assert (report.moves, report.complete) == ({Move.MOVED: 1}, True)


async def test_a_mapping_that_changes_meanwhile_or_can_not_be_read_is_left_and_told() -> None:
    inner = MemoryMappingStore()
    store = ScriptedStore(inner)
    for name in ("changed", "damaged"):
        await store.create(UserKey(OLD, name), acs_id(name))
    damaged = UserKey(OLD, "damaged")
    inner.unreadable[damaged] = UnreadableMapping(damaged, "1", Unreadable.DAMAGED, "it is a note")
    inner.unreadable[UserKey("x", "y")] = UnreadableMapping(None, "2", Unreadable.DAMAGED, key="a-note")
    store.script("remove", FailBefore(MappingChanged()))
    pairs = {"changed": "CHANGED", "damaged": "DAMAGED"}
    report = await rekey(store, MemoryAcsClient(), RekeyOptions(OLD, NEW, pairs, concurrency=1))
    assert [(each.old.subject, each.move, each.reason) for each in report.trouble] == [
        ("changed", Move.CHANGED, "The mapping was changed by someone else since it was read."),
        ("damaged", Move.UNREADABLE, "damaged: it is a note"),
    ]
    assert UserKey(NEW, "DAMAGED") not in inner.stored


async def test_a_store_that_takes_nothing_ends_the_run_early() -> None:
    store = ScriptedStore(MemoryMappingStore())
    for number in range(20):
        await store.create(UserKey(OLD, f"old {number}"), acs_id(number))
    store.script("create", FailBefore(StoreUnavailable()), None)
    pairs = {f"old {number}": f"new {number}" for number in range(20)}
    report = await rekey(store, MemoryAcsClient(), RekeyOptions(OLD, NEW, pairs, concurrency=1, give_up_after=3))
    assert report.moves == {Move.FAILED: 3}
    assert report.stopped == ("3 pairs in a row failed, the last one like this: The mapping store is unavailable.")


async def test_a_store_that_can_not_be_listed_moves_nothing_and_the_run_says_that_it_stopped(
    local_azure: LocalAzure, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    async with aclosing(await opened_cosmos(local_azure)) as cosmos:
        await cosmos.create(UserKey(OLD, "a"), acs_id("a"))
        refused = Fault(status=403, headers={"x-ms-substatus": "5301"}, times=None)
        local_azure.cosmos.faults.script("query_items", refused)
        subjects = pairs_file(tmp_path, ("a", "A"))
        result = await acs_auth(*command(subjects, "--store", "cosmos"))
        assert result.exit_code == 3
        assert "Stopped early. The store can't be read: " in result.stderr
        assert "Not complete: --report FILE says which and why." in result.stderr
        local_azure.cosmos.faults.clear()
        assert await cosmos.get(UserKey(NEW, "A")) is None


async def test_of_a_complete_run_only_the_counts_are_told(
    sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    await sqlite_store.create(UserKey(OLD, "a"), acs_id("a"))
    result = await acs_auth(*command(await asyncio.to_thread(pairs_file, tmp_path, ("a", "A"))))
    assert (result.exit_code, result.stderr) == (0, "")
    assert "        1  moved\n" in result.stdout


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--from-issuer", OLD, "--to-issuer", OLD), "--from-issuer and --to-issuer must differ."),
        (("--from-issuer", "old.example", "--to-issuer", NEW), "must be the issuer's URL (https://…), or an Entra"),
    ],
)
async def test_issuers_between_which_nothing_can_be_moved_are_refused(
    options: tuple[str, ...], sentence: str, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    subjects = await asyncio.to_thread(pairs_file, tmp_path, ("a", "A"))
    result = await acs_auth("rekey", *options, "--subjects", subjects)
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in " ".join(result.stderr.replace("│", "").split())


@pytest.mark.parametrize(
    ("content", "issuer", "fault"),
    [
        (b"old_subject,new_subject\na,A\n", TENANT, "A new subject is not an object id, although --to-issuer is a"),
        (b"old_subject,new_subject\n,A\n", NEW, "Line 2 does not hold an old and a new subject."),
        (b"old_subject,new_subject\n\xff,A\n", NEW, "subjects.csv can't be read as UTF-8 text."),
    ],
    ids=["no object id", "an empty subject", "no UTF-8"],
)
async def test_pairs_that_name_no_users_are_refused_before_anything_is_moved(
    content: bytes, issuer: str, fault: str, sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    await sqlite_store.create(UserKey(OLD, "a"), acs_id("a"))
    subjects = tmp_path / "subjects.csv"
    await asyncio.to_thread(subjects.write_bytes, content)
    result = await acs_auth("rekey", "--from-issuer", OLD, "--to-issuer", issuer, "--subjects", str(subjects))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("The pairs can't be used:\n- ")
    assert fault in result.stderr
    assert [each.user async for each in sqlite_store.mappings()] == [UserKey(OLD, "a")]


def test_empty_lines_among_the_pairs_are_no_pairs() -> None:
    assert read_pairs(["old_subject,new_subject", "", "a,A", "", "b,B"]) == {"a": "A", "b": "B"}


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
