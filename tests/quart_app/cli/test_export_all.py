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
from quart_app.operations.exporting import ExportCounts, ExportFormat, ExportOptions, ExportProgress, export_all
from storage.cosmos import CosmosMappingStore, open_cosmos_store
from storage.cosmos_options import CosmosOptions
from storage.mapping import MappingPage, MappingStore, StoreUnavailable, Unreadable, UnreadableMapping, UserKey
from storage.sqlite import open_sqlite_store
from tests.quart_app.cli.conftest import AcsAuth, extend
from tests.quart_app.cli.test_standard_streams import ACS_AUTH, ended, shell
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


async def test_another_export_into_the_same_file_is_refused_until_the_first_is_given_up(
    sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    await sqlite_store.create(ELSEWHERE, acs_id("x"))
    output = tmp_path / "mappings"
    await begun(output, "csv", "1")
    refused = await acs_auth("export", "--all", "--output", str(output))
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert refused.stderr.startswith("The export can't continue:\n- Another export was started in ")
    (tmp_path / "mappings.position").unlink()
    assert (await acs_auth("export", "--all", "--output", str(output))).exit_code == 0
    assert len(output.read_text().splitlines()) == 1


async def test_a_page_that_the_store_does_not_know_is_told_with_the_way_out(
    sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    output = tmp_path / "mappings"
    await begun(output, "jsonl", "a page of another store")
    result = await acs_auth("export", "--all", "--output", str(output))
    assert result.exit_code == 1
    assert f"does not know the page that {output}.position names. Remove that file to start afresh." in result.stderr
    assert not output.exists()


async def begun(output: Path, form: str, following: str) -> None:
    """Leave what a killed export of the SQLite store leaves."""
    options: dict[str, str | bool] = {"store": "sqlite", "format": form, "decision_owner": "", "look_up": False}
    file = await asyncio.to_thread(ExportFile, output, options)
    await file.reached(ExportProgress(following, ExportCounts(mappings=500)))
    file.close()


@pytest.mark.parametrize("kind", ["in no directory", "a directory", "a link", "a device"])
async def test_an_output_that_is_no_plain_file_is_refused_before_anything_is_read(
    kind: str, sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    path = tmp_path / "mappings"
    match kind:
        case "in no directory":
            path = tmp_path / "missing" / "mappings"
        case "a directory":
            path.mkdir()
        case "a link":
            path.symlink_to(tmp_path / "elsewhere")
        case _:
            path = Path("/dev/null")
    result = await acs_auth("export", "--all", "--output", str(path))
    assert (result.exit_code, result.stdout) == (2, "")
    assert "can't be written" in " ".join(result.stderr.split())
    assert not (tmp_path / "elsewhere").exists()
    assert not path.with_name(f"{path.name}.partial").exists()


async def test_an_output_that_can_no_longer_be_written_is_told_and_the_same_command_continues(
    sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    for number in range(501):  # more than a page
        await sqlite_store.create(UserKey("tenant", str(number)), acs_id(str(number)))
    output, obstacle = tmp_path / "mappings", tmp_path / "mappings.position.new"
    obstacle.mkdir()
    command = ("export", "--all", "--output", str(output))
    result = await acs_auth(*command)
    assert result.exit_code == 1
    assert f"{output} can't be written (Is a directory). What was written stays: run the same" in result.stderr
    assert not output.exists()
    obstacle.rmdir()
    assert (await acs_auth(*command)).exit_code == 0
    assert [json.loads(line)["subject"] for line in output.read_text().splitlines()] == [str(n) for n in range(501)]


async def test_what_is_printed_and_finds_no_room_is_told(local_azure: LocalAzure, tmp_path: Path) -> None:
    environment = environment_for(local_azure, tmp_path)
    async with aclosing(await open_sqlite_store(Path(environment["SQLITE_PATH"]))) as store:
        await store.create(ELSEWHERE, acs_id("x"))
    status, out, err = await ended(await shell(environment, f"{ACS_AUTH} export --all > /dev/full"))
    assert (status, out, err) == (1, "", "The output can't be written (No space left on device).\n")


@pytest.mark.parametrize(
    ("changes", "options", "fault"),
    [
        (
            {"ENTRA_CLIENT_SECRET": None},
            ("--format", "graph-chat", "--look-up"),
            "Asking Entra ID needs exactly one of ENTRA_CLIENT_SECRET, ",
        ),
        ({"COSMOS_ENDPOINT": None}, ("--store", "cosmos"), "COSMOS_ENDPOINT is not set, such as https://"),
    ],
)
async def test_an_export_that_the_settings_do_not_suffice_for_is_refused(
    changes: dict[str, str | None],
    options: tuple[str, ...],
    fault: str,
    sqlite_store: MappingStore,
    environment: dict[str, str | None],
    acs_auth: AcsAuth,
) -> None:
    environment.update(changes)
    result = await acs_auth("export", "--all", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"The settings can't be used:\n- {fault}")


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
