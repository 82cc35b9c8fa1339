"""`acs-auth export --all`: every mapping, in each form, once, whatever interrupts it."""

import asyncio
import csv
import json
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from local_azure.cosmos import throttled
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.operations.export_file import ExportFile, NotResumable
from quart_app.operations.exporting import ExportFormat, ExportOptions, export_all
from storage.cosmos import CosmosMappingStore, open_cosmos_store
from storage.cosmos_options import CosmosOptions
from storage.mapping import MappingPage, MappingStore, StoreUnavailable, Unreadable, UnreadableMapping, UserKey
from tests.quart_app.cli.conftest import AcsAuth, extend
from tests.support.acs_ids import acs_id
from tests.support.memory_store import MemoryMappingStore
from tests.support.service_process import acs_auth as start_acs_auth
from tests.support.service_process import environment_for

LONG_AGO = datetime(2024, 2, 29, 12, 30, 15, 250000, UTC)
HEADER = "acs_user_id,entra_object_id,target_tenant_id,status,decision_owner\n"
ELSEWHERE = UserKey("https://issuer.example/v2", 'auth0|a "strange", one')


def key(local_azure: LocalAzure, name: str) -> UserKey:
    user = local_azure.entra.users[name]
    return UserKey(user.tenant_id, user.object_id)


async def opened_cosmos(local_azure: LocalAzure) -> CosmosMappingStore:
    given = local_azure.service_environment()
    return await open_cosmos_store(
        CosmosOptions(
            given["COSMOS_ENDPOINT"], given["COSMOS_DATABASE"], given["COSMOS_CONTAINER"], key=given["COSMOS_KEY"]
        )
    )


async def test_every_mapping_is_a_line_of_json(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth
) -> None:
    for number in range(501):  # more than a page
        await sqlite_store.create(UserKey("tenant", str(number)), acs_id(str(number)), LONG_AGO)
    result = await acs_auth("export", "--all")
    assert (result.exit_code, result.stderr) == (0, "501 mappings.\n")
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert lines[0] == {
        "issuer": "tenant",
        "subject": "0",
        "acsUserId": acs_id("0"),
        "createdAt": "2024-02-29T12:30:15.250000+00:00",
        "deleting": False,
        "signedOutAt": None,
    }
    assert [line["subject"] for line in lines] == [str(number) for number in range(501)]


async def test_every_mapping_is_a_row_of_csv(sqlite_store: MappingStore, acs_auth: AcsAuth) -> None:
    mapping = await sqlite_store.create(ELSEWHERE, acs_id("x"), LONG_AGO)
    await sqlite_store.change(mapping, deleting=True, signed_out_at=LONG_AGO)
    result = await acs_auth("export", "--all", "--format", "csv")
    assert result.exit_code == 0
    (row,) = csv.DictReader(result.stdout.splitlines())
    assert row == {
        "issuer": ELSEWHERE.issuer,
        "subject": ELSEWHERE.subject,
        "acs_user_id": acs_id("x"),
        "created_at": "2024-02-29T12:30:15.250000+00:00",
        "deleting": "true",
        "signed_out_at": "2024-02-29T12:30:15.250000+00:00",
        "unreadable": "",
        "stored_as": "",
    }


async def test_without_looking_up_nobody_is_mapped_for_microsofts_chat_migration(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth
) -> None:
    alex = key(local_azure, "alex")
    await sqlite_store.create(alex, acs_id("alex"))
    await sqlite_store.create(ELSEWHERE, acs_id("elsewhere"))
    await sqlite_store.change(await sqlite_store.create(key(local_azure, "zoe"), acs_id("zoe")), deleting=True)
    result = await acs_auth("export", "--all", "--format", "graph-chat", "--decision-owner", "identity-team")
    assert result.exit_code == 0
    assert result.stdout == (
        f"{HEADER}{acs_id('alex')},{alex.subject},{alex.issuer},unresolved,identity-team\n"
        f"{acs_id('elsewhere')},,,unresolved,identity-team\n"
    )
    assert result.stderr == "2 mappings; 1 left out, being deleted; 2 unresolved.\n"
    assert local_azure.graph.faults.counts["get_by_ids"] == 0


async def test_who_was_looked_up_and_exists_is_mapped(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth
) -> None:
    alex, megan = key(local_azure, "alex"), key(local_azure, "megan")
    await sqlite_store.create(alex, acs_id("alex"))
    await sqlite_store.create(megan, acs_id("megan"))
    await sqlite_store.create(ELSEWHERE, acs_id("elsewhere"))
    local_azure.user_states.delete(local_azure.entra.users["megan"])
    result = await acs_auth("export", "--all", "--format", "graph-chat", "--look-up")
    assert result.exit_code == 0
    assert result.stdout == (
        f"{HEADER}{acs_id('alex')},{alex.subject},{alex.issuer},mapped,\n"
        f"{acs_id('megan')},,,unresolved,\n{acs_id('elsewhere')},,,unresolved,\n"
    )
    assert local_azure.graph.faults.counts["get_by_ids"] == 1


async def test_an_answer_that_can_not_be_whole_maps_nobody(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth
) -> None:
    await sqlite_store.create(key(local_azure, "alex"), acs_id("alex"))
    local_azure.graph.faults.script("get_by_ids", Fault(status=200, body={"value": []}))
    result = await acs_auth("export", "--all", "--format", "graph-chat", "--look-up")
    assert result.exit_code == 1
    assert "service principal" in result.stderr
    assert result.stdout == HEADER


async def test_users_of_microsoft_graph_were_looked_up_by_listing_them(
    local_azure: LocalAzure, acs_auth: AcsAuth
) -> None:
    alex = key(local_azure, "alex")
    extend(local_azure, *(alex.issuer, alex.subject), acs_id("alex"))
    result = await acs_auth("export", "--all", "--format", "graph-chat", "--store", "graph")
    assert (result.exit_code, result.stdout) == (
        0,
        f"{HEADER}{acs_id('alex')},{alex.subject},{alex.issuer},mapped,\n",
    )


async def test_killed_twice_the_file_holds_every_mapping_once(local_azure: LocalAzure, tmp_path: Path) -> None:
    count = 1_200  # three pages
    async with aclosing(await opened_cosmos(local_azure)) as cosmos:
        for number in range(count):
            await cosmos.create(UserKey("tenant", str(number)), acs_id(str(number)))
    environment = environment_for(local_azure, tmp_path, "cosmos")
    output, faults = tmp_path / "mappings.jsonl", local_azure.cosmos.faults
    command = ("export", "--all", "--output", str(output))
    kept = []
    for _ in range(2):
        before = faults.counts["query_items"]
        faults.script("query_items", Fault(), Fault(hang=True))  # one more page is answered, and no second one
        process = await start_acs_auth(environment, *command)
        await faults.arrived("query_items", before + 2)
        process.kill()
        await process.communicate()
        faults.clear()
        assert process.returncode == -9
        assert not output.exists()
        kept.append(json.loads((tmp_path / "mappings.jsonl.position").read_text())["counts"]["mappings"])
    process = await start_acs_auth(environment, *command)
    _, err = await process.communicate()
    assert process.returncode == 0, err
    assert kept == [500, 1_000]
    assert b"Continuing after 1000 mappings." in err
    subjects = [json.loads(line)["subject"] for line in output.read_text().splitlines()]
    assert (len(subjects), set(subjects)) == (count, {str(number) for number in range(count)})
    assert output.stat().st_mode & 0o777 == 0o600
    assert not (tmp_path / "mappings.jsonl.partial").exists()
    assert not (tmp_path / "mappings.jsonl.position").exists()


class Interrupted(MemoryMappingStore):
    """A store that fails at one page."""

    fails_at: str | None = None

    async def page(self, name: str | None) -> MappingPage:
        if name is not None and name == self.fails_at:
            raise StoreUnavailable
        return await super().page(name)


async def interrupted(path: Path, store: Interrupted) -> None:
    """Export to `path` up to the second page."""
    store.fails_at = "3"
    file = await asyncio.to_thread(ExportFile, path, {"store": "memory"})
    with pytest.raises(StoreUnavailable):
        await export_all(store, file, ExportOptions(ExportFormat.CSV))
    file.close()
    store.fails_at = None


@pytest.fixture
async def store() -> Interrupted:
    store = Interrupted()
    for number in range(7):
        await store.create(UserKey("tenant", str(number)), acs_id(str(number)))
    return store


async def test_what_was_written_after_the_last_position_is_cut_off(store: Interrupted, tmp_path: Path) -> None:
    path = tmp_path / "mappings.csv"
    path.write_text("an older export")
    await interrupted(path, store)
    with (tmp_path / "mappings.csv.partial").open("a") as partial:
        partial.write("half a row that a killed process le")
    assert path.read_text() == "an older export"
    file = await asyncio.to_thread(ExportFile, path, {"store": "memory"})
    counts = await export_all(store, file, ExportOptions(ExportFormat.CSV))
    assert counts.mappings == 7
    assert [row["subject"] for row in csv.DictReader(path.read_text().splitlines())] == [str(n) for n in range(7)]


@pytest.mark.parametrize("damage", ["options", "position", "rows"])
async def test_what_can_not_be_gone_on_with_is_refused(damage: str, store: Interrupted, tmp_path: Path) -> None:
    path = tmp_path / "mappings.csv"
    await interrupted(path, store)
    if damage == "position":
        (tmp_path / "mappings.csv.position").write_text("{")
    if damage == "rows":
        (tmp_path / "mappings.csv.partial").write_text("")
    with pytest.raises(NotResumable, match=r"remove .*mappings\.csv\.position"):
        await asyncio.to_thread(ExportFile, path, {"store": "another" if damage == "options" else "memory"})


async def test_what_can_not_be_read_is_exported_as_that(store: Interrupted, tmp_path: Path) -> None:
    store.unreadable[ELSEWHERE] = UnreadableMapping(ELSEWHERE, "1", Unreadable.DAMAGED, "it is a note")
    for form, said in (
        (ExportFormat.JSON_LINES, '"unreadable": "damaged: it is a note"'),
        (ExportFormat.CSV, ",damaged: it is a note,"),
    ):
        path = tmp_path / form
        counts = await export_all(store, await asyncio.to_thread(ExportFile, path, {}), ExportOptions(form))
        assert (counts.mappings, counts.unreadable) == (7, 1)
        assert said in path.read_text()


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--all", "--user", "https://issuer.example/x"),
        ("--user", "https://issuer.example/x", "--format", "csv"),
        ("--all", "--look-up"),
        ("--all", "--format", "csv", "--decision-owner", "me"),
    ],
)
async def test_options_that_do_not_go_together_are_refused(arguments: tuple[str, ...], acs_auth: AcsAuth) -> None:
    assert (await acs_auth("export", *arguments)).exit_code == 2


async def test_a_throttled_listing_is_waited_for(local_azure: LocalAzure, acs_auth: AcsAuth) -> None:
    async with aclosing(await opened_cosmos(local_azure)) as cosmos:
        await cosmos.create(ELSEWHERE, acs_id("x"))
    local_azure.cosmos.faults.script("query_items", throttled(1), throttled(1))
    result = await acs_auth("export", "--all", "--store", "cosmos")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 1)
