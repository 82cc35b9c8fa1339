"""`acs-auth migrate` copies every mapping, exactly, whatever happens on the way."""

import asyncio
import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tenacity.wait import wait_exponential

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.cli.progress import Progress
from quart_app.operations.migration import MigrationOptions, MigrationOutcome, migrate
from storage.graph_extensions import DELETING
from storage.mapping import (
    MappingStore,
    StoreThrottled,
    StoreUnavailable,
    Unreadable,
    UnreadableMapping,
    UserKey,
)
from tests.quart_app.cli.conftest import AcsAuth, extend
from tests.support.acs_ids import acs_id
from tests.support.killed_migration import killed_migration
from tests.support.memory_store import MemoryMappingStore
from upstream.retrying import RetryPolicy

Environment = dict[str, str | None]


def exists(path: str) -> bool:
    return Path(path).exists()


def summary(stdout: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stdout)
    return found


async def test_killed_twice_and_throttled_it_ends_complete_and_exact(local_azure: LocalAzure, tmp_path: Path) -> None:
    outcome = await killed_migration(local_azure, tmp_path, 300)
    assert outcome.exact
    last = outcome.last_run
    assert (last["read"], last["created"] + last["already_there"], last["complete"]) == (300, 300, True)
    assert last["waits"] > 0
    assert (last["conflicting"], last["failed"], last["in_deletion"]) == (0, 0, 0)


async def test_each_kind_of_mapping_is_counted_and_named_in_the_report_file_alone(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    target = sqlite_store
    users = local_azure.entra.users
    for name in ("alex", "megan", "pradeep", "zoe"):
        more = {DELETING: True} if name == "zoe" else {}
        extend(local_azure, users[name].tenant_id, users[name].object_id, acs_id(f"{name}"), **more)
    await target.create(UserKey(users["megan"].tenant_id, users["megan"].object_id), acs_id("megan"))
    await target.create(UserKey(users["pradeep"].tenant_id, users["pradeep"].object_id), acs_id("another"))
    command = ("migrate", "--from", "graph", "--to", "sqlite", "--json", "--report", str(tmp_path / "report.json"))

    dry = await acs_auth(*command, "--dry-run")
    assert await target.get(UserKey(users["alex"].tenant_id, users["alex"].object_id)) is None
    wet = await acs_auth(*command)
    again = await acs_auth(*command)

    expected = {"read": 4, "created": 1, "already_there": 1, "conflicting": 1, "in_deletion": 1, "failed": 0}
    for result in (dry, wet):
        assert result.exit_code == 3
        assert expected.items() <= summary(result.stdout).items()
    assert (expected | {"created": 0, "already_there": 2}).items() <= summary(again.stdout).items()
    for result in (dry, wet, again):
        assert users["pradeep"].object_id not in result.output
        assert "8:acs:" not in result.output
    report = tmp_path / "report.json"
    assert report.stat().st_mode & 0o777 == 0o600
    (conflict,) = json.loads(report.read_text())["mappings"]
    assert (conflict["subject"], conflict["outcome"]) == (users["pradeep"].object_id, "conflicting")
    kept = await target.get(UserKey(users["pradeep"].tenant_id, users["pradeep"].object_id))
    assert kept is not None
    assert kept.acs_user_id == acs_id("another")


@pytest.mark.parametrize(("source", "target"), [("cosmos", "graph"), ("graph", "sqlite"), ("sqlite", "cosmos")])
async def test_any_store_can_be_moved_into_any_other_and_back(
    source: str, target: str, local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    alex = local_azure.entra.users["alex"]
    user = f"{alex.tenant_id}/{alex.object_id}"
    extend(local_azure, alex.tenant_id, alex.object_id, acs_id("alex"))
    if source != "graph":
        assert (await acs_auth("migrate", "--from", "graph", "--to", source)).exit_code == 0
        local_azure.graph.extensions.delete(alex.tenant_id, alex.object_id, "com.contoso.identityMapping")
    moved = await acs_auth("migrate", "--from", source, "--to", target, "--json")
    assert (moved.exit_code, summary(moved.stdout)["created"]) == (0, 1)
    for store in (source, target):
        exported = await acs_auth("export", "--user", user, "--store", store)
        assert json.loads(exported.stdout)["mapping"]["acsUserId"] == acs_id("alex")


async def test_the_time_of_creation_survives_every_move(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth
) -> None:
    alex = local_azure.entra.users["alex"]
    user = UserKey(alex.tenant_id, alex.object_id)
    mapping = await sqlite_store.create(user, acs_id("alex"), datetime(2024, 2, 29, 12, 30, 15, 250000, UTC))
    for source, target in (("sqlite", "cosmos"), ("cosmos", "graph"), ("graph", "sqlite")):
        if target == "sqlite":
            await sqlite_store.remove(mapping)
        moved = await acs_auth("migrate", "--from", source, "--to", target, "--json")
        assert (moved.exit_code, summary(moved.stdout)["created"]) == (0, 1)
        exported = await acs_auth("export", "--user", f"{user.issuer}/{user.subject}", "--store", target)
        assert json.loads(exported.stdout)["mapping"]["createdAt"] == "2024-02-29T12:30:15.250000+00:00"


async def test_a_create_whose_answer_was_lost_is_settled_by_looking(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    alex = local_azure.entra.users["alex"]
    extend(local_azure, alex.tenant_id, alex.object_id, acs_id("alex"))
    local_azure.cosmos.faults.script("create_item", Fault(drop_answer=True), Fault(reset=True))
    result = await acs_auth("migrate", "--from", "graph", "--to", "cosmos", "--json")
    assert (result.exit_code, summary(result.stdout)["created"]) == (0, 1)
    assert len(local_azure.cosmos.items()) == 1


async def test_graphs_throttling_of_the_listing_is_waited_for(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    alex = local_azure.entra.users["alex"]
    extend(local_azure, alex.tenant_id, alex.object_id, acs_id("alex"))
    local_azure.graph.faults.script("list_users", Fault(status=429, headers={"Retry-After": "0"}, times=3))
    result = await acs_auth("migrate", "--from", "graph", "--to", "sqlite", "--json")
    assert result.exit_code == 0
    assert (summary(result.stdout)["created"], summary(result.stdout)["waits"]) == (1, 3)


async def test_a_target_that_takes_nothing_ends_the_run_early() -> None:
    class Broken(MemoryMappingStore):
        async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> Any:
            raise StoreThrottled

    source = MemoryMappingStore()
    for number in range(100):
        await source.create(UserKey("tenant", str(number)), acs_id(number))
    report = await migrate(source, Broken(), MigrationOptions(concurrency=4, give_up_after=10))
    assert report.stopped is not None
    assert "throttling" in report.stopped
    assert report.read < 20
    assert not report.complete


async def test_a_target_that_is_away_is_looked_at_before_it_is_written_to_again() -> None:
    calls = []

    class Away(MemoryMappingStore):
        async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> Any:
            calls.append("create")
            if calls.count("create") == 1:
                raise StoreUnavailable
            return await super().create(user, acs_user_id, created_at)

        async def get(self, user: UserKey) -> Any:
            calls.append("get")
            return await super().get(user)

    source = MemoryMappingStore()
    await source.create(UserKey("tenant", "one"), acs_id("one"))
    report = await migrate(source, Away(), MigrationOptions(concurrency=1, retry=RetryPolicy(sleep=Waits())))
    assert (report.complete, calls) == (True, ["get", "create", "get", "create"])


class Waits(list[float]):
    """Takes the place of sleeping, and remembers for how long."""

    async def __call__(self, seconds: float) -> None:
        self.append(seconds)


class RefusingWrites(MemoryMappingStore):
    """Answers reads only, as a store whose region is being moved does; `refused` counts the writes."""

    refused = 0
    lossy = False

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> Any:
        self.refused += 1
        if self.lossy:
            await super().create(user, acs_user_id, created_at)
        raise StoreUnavailable


async def test_what_was_there_already_is_never_counted_as_created_though_writes_fail() -> None:
    source, target, waits = MemoryMappingStore(), RefusingWrites(), Waits()
    for number in range(6):
        await source.create(UserKey("tenant", str(number)), acs_id(number))
        if number % 2:
            await MemoryMappingStore.create(target, UserKey("tenant", str(number)), acs_id(number))
    options = MigrationOptions(concurrency=1, retry=RetryPolicy(attempts=5, sleep=waits))
    report = await migrate(source, target, options)
    assert report.outcomes == {MigrationOutcome.ALREADY_THERE: 3, MigrationOutcome.FAILED: 3}
    assert target.refused == 3 * 5


async def test_a_write_that_fails_is_repeated_after_a_growing_pause_only() -> None:
    source, waits = MemoryMappingStore(), Waits()
    await source.create(UserKey("tenant", "one"), acs_id("one"))
    retry = replace(RetryPolicy(attempts=5, back_off=wait_exponential(multiplier=0.2)), sleep=waits)
    await migrate(source, RefusingWrites(), MigrationOptions(retry=retry))
    assert waits == [0.2, 0.4, 0.8, 1.6]
    assert MigrationOptions().retry.attempts == 5


async def test_a_write_whose_answer_was_lost_counts_as_created() -> None:
    source, target = MemoryMappingStore(), RefusingWrites()
    target.lossy = True
    await source.create(UserKey("tenant", "one"), acs_id("one"))
    report = await migrate(source, target, MigrationOptions())
    assert (report.outcomes, target.refused) == ({MigrationOutcome.CREATED: 1}, 1)


@pytest.mark.parametrize("command", [("reconcile",), ("migrate", "--from", "sqlite", "--to", "cosmos")])
async def test_a_file_that_is_missing_is_neither_made_nor_taken_for_an_empty_store(
    command: tuple[str, ...], environment: Environment, acs_auth: AcsAuth
) -> None:
    path = str(environment["SQLITE_PATH"])
    result = await acs_auth(*command)
    assert result.exit_code == 2
    assert f"SQLITE_PATH names no file: {path} does not exist." in result.stderr
    assert not exists(path)


async def test_the_target_of_a_migration_may_be_new(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    assert (await acs_auth("migrate", "--from", "cosmos", "--to", "sqlite")).exit_code == 0
    assert exists(str(environment["SQLITE_PATH"]))


@pytest.mark.parametrize(("fails_at", "read"), [(1, 0), (2, 1)], ids=["first look", "copying"])
async def test_a_source_that_can_no_longer_be_read_is_never_taken_for_its_end(fails_at: int, read: int) -> None:
    class Breaking(MemoryMappingStore):
        listings = 0

        def mappings(self) -> Any:
            self.listings += 1
            return self.broken() if self.listings == fails_at else super().mappings()

        async def broken(self) -> Any:
            yield self.stored[UserKey("tenant", "one")]
            raise StoreUnavailable

    source, target = Breaking(), MemoryMappingStore()
    for name in ("one", "two"):
        await source.create(UserKey("tenant", name), acs_id(name))
    report = await migrate(source, target, MigrationOptions(concurrency=1))
    assert report.stopped is not None
    assert "source can't be read" in report.stopped
    assert (report.read, len(target.stored)) == (read, read)
    assert not report.complete


async def test_so_many_mappings_are_on_their_way_at_once_and_no_more() -> None:
    class Counting(MemoryMappingStore):
        def __init__(self) -> None:
            super().__init__()
            self.now = self.most = 0

        async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> Any:
            self.now += 1
            self.most = max(self.most, self.now)
            for _ in range(10):
                await asyncio.sleep(0)
            self.now -= 1
            return await super().create(user, acs_user_id, created_at)

    source, target = MemoryMappingStore(), Counting()
    for number in range(50):
        await source.create(UserKey("tenant", str(number)), acs_id(number))
    report = await migrate(source, target, MigrationOptions(concurrency=5))
    assert (report.complete, report.read, target.most) == (True, 50, 5)


@pytest.mark.parametrize(
    ("arguments", "changes", "sentence"),
    [
        (("--from", "sqlite", "--to", "sqlite"), {}, "must differ"),
        (("--from", "sqlite", "--to", "cosmos"), {"COSMOS_ENDPOINT": None}, "COSMOS_ENDPOINT is not set"),
        (("--from", "graph", "--to", "sqlite"), {"ENTRA_CLIENT_SECRET": None}, "exactly one of ENTRA_CLIENT_SECRET"),
    ],
)
async def test_what_can_not_work_is_refused_with_status_2(
    arguments: tuple[str, ...], changes: Environment, sentence: str, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment.update(changes)
    result = await acs_auth("migrate", *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr


async def test_a_store_that_cannot_be_opened_ends_with_status_1(environment: Environment, acs_auth: AcsAuth) -> None:
    environment["SQLITE_PATH"] = "/nowhere/mappings.sqlite"
    result = await acs_auth("migrate", "--from", "graph", "--to", "sqlite")
    assert result.exit_code == 1
    assert "Create its directory" in result.stderr


async def test_on_a_terminal_a_bar_shows_on_standard_error_alone(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["FORCE_COLOR"] = "1"  # what makes rich take standard error for a terminal
    alex = local_azure.entra.users["alex"]
    extend(local_azure, alex.tenant_id, alex.object_id, acs_id("alex"))
    result = await acs_auth("migrate", "--from", "graph", "--to", "sqlite", "--json")
    assert result.exit_code == 0
    assert "\x1b[" in result.stderr
    assert summary(result.stdout)["created"] == 1


async def test_on_a_terminal_a_wait_shows_in_the_bar(
    local_azure: LocalAzure, environment: Environment, acs_auth: AcsAuth
) -> None:
    environment["FORCE_COLOR"] = "1"
    denied = {"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."}}
    busy = Fault(status=429, headers={"Retry-After": "0"}, times=2)
    # The bar that a run ends with is always drawn: this one ends where it has waited.
    local_azure.graph.faults.script("list_users", busy, Fault(status=403, body=denied))
    result = await acs_auth("migrate", "--from", "graph", "--to", "sqlite")
    assert result.exit_code == 3
    assert "waiting: The mapping store is throttling requests." in result.stderr
    assert "        2  waits for a throttled or unavailable service\n" in result.stdout


def test_a_bar_is_told_only_what_it_does_not_show_yet() -> None:
    shown = []

    def bar(text: str) -> None:
        shown.append(text)

    progress = Progress(bar)
    for attempt in (1, 2):
        progress.waited(StoreThrottled(), attempt, 0.0)
    progress.done(1, "done", 0)
    progress.done(1, "done", 0)
    assert shown == ["waiting: The mapping store is throttling requests.", "1 done, 0 in trouble, 2 waits"]


def test_without_a_terminal_each_thousandth_mapping_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(None)
    for count in (0, 1, 999, 1000, 1001, 1999, 2000):
        progress.done(count, "done", count // 1000)
    assert capsys.readouterr().err == (
        "1000 mappings done, 1 in trouble, 0 waits\n2000 mappings done, 2 in trouble, 0 waits\n"
    )


@pytest.mark.parametrize("report", [False, True])
async def test_a_run_that_stops_early_says_why_and_what_to_do_next(
    report: bool, local_azure: LocalAzure, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    path = tmp_path / "report.json"
    denied = {"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."}}
    local_azure.graph.faults.script("list_users", Fault(status=403, body=denied))
    options = ("--report", str(path)) if report else ()
    result = await acs_auth("migrate", "--from", "graph", "--to", "sqlite", *options)
    assert result.exit_code == 3
    stopped, incomplete = result.stderr.splitlines()
    assert stopped.startswith("Stopped early. The source can't be read: Microsoft Graph denied access")
    where = f"{path} says" if report else "--report FILE says"
    assert incomplete == f"Not complete: {where} which and why. Run the same command again to continue."


@pytest.mark.parametrize(
    ("theirs", "outcome"),
    [("one", MigrationOutcome.ALREADY_THERE), ("another", MigrationOutcome.CONFLICTING)],
)
async def test_what_somebody_else_writes_into_the_target_meanwhile_is_not_counted_as_created(
    theirs: str, outcome: MigrationOutcome
) -> None:
    class WrittenMeanwhile(MemoryMappingStore):
        async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> Any:
            await super().create(user, acs_id(theirs))
            return await super().create(user, acs_user_id, created_at)

    source, target = MemoryMappingStore(), WrittenMeanwhile()
    await source.create(UserKey("tenant", "one"), acs_id("one"))
    report = await migrate(source, target, MigrationOptions())
    assert report.outcomes == {outcome: 1}
    assert target.stored[UserKey("tenant", "one")].acs_user_id == acs_id(theirs)


async def test_an_identity_at_two_users_and_what_can_not_be_read_are_named_and_not_copied() -> None:
    source, target = MemoryMappingStore(), MemoryMappingStore()
    one, two, three, four = (UserKey("tenant", name) for name in ("one", "two", "three", "four"))
    await source.create(one, acs_id("shared"))
    await source.create(two, acs_id("alone"), datetime(2025, 1, 2, tzinfo=UTC))
    await source.create(three, acs_id("shared"))
    source.unreadable[four] = UnreadableMapping(None, "1", Unreadable.DAMAGED, "it is a note", key="a-note")
    for dry_run in (True, False):
        report = await migrate(source, target, MigrationOptions(dry_run=dry_run))
        assert not report.complete
        assert (report.read, report.outcomes) == (
            3,
            Counter({MigrationOutcome.SHARED: 2, MigrationOutcome.CREATED: 1, MigrationOutcome.UNREADABLE: 1}),
        )
        assert {(each.user, each.key, each.outcome) for each in report.trouble} == {
            (one, "", MigrationOutcome.SHARED),
            (three, "", MigrationOutcome.SHARED),
            (None, "a-note", MigrationOutcome.UNREADABLE),
        }
    (copied,) = target.stored.values()
    assert (copied.user, copied.created_at) == (two, datetime(2025, 1, 2, tzinfo=UTC))


async def test_an_identity_that_the_target_gave_to_another_user_is_named_and_not_copied() -> None:
    source, target = MemoryMappingStore(), MemoryMappingStore()
    one, two = UserKey("tenant", "one"), UserKey("tenant", "two")
    await source.create(one, acs_id("taken"))
    await target.create(two, acs_id("taken"))
    for dry_run in (True, False):
        report = await migrate(source, target, MigrationOptions(dry_run=dry_run))
        assert [(each.user, each.outcome) for each in report.trouble] == [(one, MigrationOutcome.SHARED)]
    assert [mapping.user for mapping in target.stored.values()] == [two]


async def test_what_stands_in_the_target_and_can_not_be_read_stops_only_its_own_mapping() -> None:
    source, target = MemoryMappingStore(), MemoryMappingStore()
    one, two = UserKey("tenant", "one"), UserKey("tenant", "two")
    for user in (one, two):
        await source.create(user, acs_id(user.subject))
    target.unreadable[one] = UnreadableMapping(one, "1", Unreadable.DAMAGED, key="one")
    report = await migrate(source, target, MigrationOptions())
    assert (report.complete, report.outcomes) == (
        False,
        Counter({MigrationOutcome.CREATED: 1, MigrationOutcome.UNREADABLE: 1}),
    )
    assert list(target.stored) == [two]
