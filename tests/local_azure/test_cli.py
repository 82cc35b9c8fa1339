"""`acs-auth-local` against running stand-ins, and what it says when there are none."""

import asyncio
import os
import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest
from click.testing import CliRunner, Result

from local_azure.acs import DeletedIdentityAnswer
from local_azure.certificates import LocalAuthority
from local_azure.cli import main
from local_azure.entra.directory import API, TEAMS, USERS
from local_azure.environment import LocalAzure
from local_azure.service_process import ServiceEnded, environment
from tests.support.ports import PORT_OPTIONS, port_arguments, some_free_ports


async def command(local_azure: LocalAzure, directory: Path, *arguments: str) -> Result:
    """Run a command with the ports of the running stand-ins."""
    with_ports = [*arguments, "--state-dir", str(directory)]
    if arguments[0] != "deleted-identity":
        with_ports += ["--entra-port", str(urlsplit(local_azure.entra.url).port)]
    if arguments[0] in ("fault", "deleted-identity"):
        endpoint = local_azure.service_environment()["ACS_CONNECTION_STRING"].split(";")[0].removeprefix("endpoint=")
        with_ports += ["--acs-port", str(urlsplit(endpoint).port)]
    return await asyncio.to_thread(CliRunner().invoke, main, with_ports)


@contextmanager
def listening_socket() -> Iterator[int]:
    """A port of loopback that somebody else uses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


@pytest.fixture
def free_ports() -> list[int]:
    return some_free_ports()


async def statuses(url: str, count: int) -> list[int]:
    async with aiohttp.ClientSession() as session:
        answers = []
        for _ in range(count):
            async with session.get(url) as response:
                answers.append(response.status)
    return answers


# token and users


async def test_token_prints_an_access_token_of_the_first_user_and_nothing_else(
    local_azure: LocalAzure, state_directory: Path
) -> None:
    result = await command(local_azure, state_directory, "token")
    assert result.exit_code == 0
    claims = local_azure.entra.verify(result.stdout.removesuffix("\n"))
    assert claims is not None
    assert claims["oid"] == USERS["alex"].object_id
    assert claims["scp"] == "access_as_user"


async def test_token_prints_the_token_of_the_named_user(local_azure: LocalAzure, state_directory: Path) -> None:
    result = await command(local_azure, state_directory, "token", "--user", "megan")
    claims = local_azure.entra.verify(result.stdout.strip())
    assert claims is not None
    assert claims["oid"] == USERS["megan"].object_id


async def test_token_for_teams_is_one_that_acs_exchanges(local_azure: LocalAzure, state_directory: Path) -> None:
    result = await command(local_azure, state_directory, "token", "--user", "megan", "--teams")
    claims = local_azure.entra.verify(result.stdout.strip())
    assert claims is not None
    assert claims["aud"] == "https://auth.msft.communication.azure.com"
    assert claims["appid"] == TEAMS.client_id


async def test_an_unknown_user_is_answered_with_the_known_ones(local_azure: LocalAzure, state_directory: Path) -> None:
    result = await command(local_azure, state_directory, "token", "--user", "nobody")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert "nobody" in result.stderr
    assert all(alias in result.stderr for alias in USERS)


async def test_users_lists_every_user(local_azure: LocalAzure, state_directory: Path) -> None:
    result = await command(local_azure, state_directory, "users")
    assert [line.split()[0] for line in result.stdout.splitlines()] == list(USERS)
    assert all(user.username in result.stdout for user in USERS.values())


# No stand-in there


@pytest.mark.parametrize(
    "arguments", [["token"], ["users"], ["rotate-keys"], ["fault", "entra", "--clear"], ["fault", "acs", "--clear"]]
)
def test_without_running_stand_ins_one_sentence_says_how_to_start_them(
    arguments: list[str], state_directory: Path, free_ports: list[int]
) -> None:
    arguments = [*arguments, "--state-dir", str(state_directory), "--entra-port", str(free_ports[0])]
    if arguments[0] == "fault":
        arguments += ["--acs-port", str(free_ports[1])]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert len(result.stderr.splitlines()) == 1
    assert "does not answer" in result.stderr
    assert "`acs-auth-local run`" in result.stderr


def test_a_directory_where_nothing_ran_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["token", "--state-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert str(tmp_path / "ca.pem") in result.stderr


async def test_stand_ins_of_another_directory_are_not_trusted(local_azure: LocalAzure, tmp_path: Path) -> None:
    LocalAuthority(tmp_path / "other")
    result = await command(local_azure, tmp_path / "other", "token")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "--state-dir" in result.stderr


# fault


async def test_a_fault_holds_for_as_many_calls_as_told(local_azure: LocalAzure, state_directory: Path) -> None:
    url = f"{local_azure.entra.url}/common/discovery/v2.0/keys"
    scripted = ["fault", "entra", "keys_v2", "--status", "503", "--header", "Retry-After: 2", "--times", "2"]
    assert (await command(local_azure, state_directory, *scripted)).exit_code == 0
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "2")
    assert await statuses(url, 2) == [503, 200]


async def test_a_fault_of_acs_reaches_acs(local_azure: LocalAzure, state_directory: Path) -> None:
    await command(local_azure, state_directory, "fault", "acs", "create_identity", "--status", "418")
    endpoint = local_azure.service_environment()["ACS_CONNECTION_STRING"].split(";")[0].removeprefix("endpoint=")
    async with aiohttp.ClientSession() as session, session.post(f"{endpoint}identities") as response:
        assert response.status == 418


async def test_a_fault_without_end_holds_until_it_is_cleared(local_azure: LocalAzure, state_directory: Path) -> None:
    url = f"{local_azure.entra.url}/common/discovery/v2.0/keys"
    await command(local_azure, state_directory, "fault", "entra", "*", "--status", "500", "--times", "0")
    assert await statuses(url, 3) == [500, 500, 500]
    assert (await command(local_azure, state_directory, "fault", "entra", "--clear")).exit_code == 0
    assert await statuses(url, 1) == [200]


@pytest.mark.parametrize("option", ["--reset", "--drop-answer"])
async def test_a_fault_may_cut_the_connection(local_azure: LocalAzure, state_directory: Path, option: str) -> None:
    await command(local_azure, state_directory, "fault", "entra", "token", option)
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectionError):
            await session.post(f"{local_azure.entra.url}/common/oauth2/v2.0/token")
        async with session.post(f"{local_azure.entra.url}/common/oauth2/v2.0/token") as response:
            assert response.status == 400


async def test_a_fault_may_be_a_strangers_answer(local_azure: LocalAzure, state_directory: Path) -> None:
    url = f"{local_azure.entra.url}/common/discovery/v2.0/keys"
    page = state_directory / "page.html"
    page.write_bytes(b"<h1>Not found</h1>\xff")
    stranger = ["--status", "404", "--body-file", str(page), "--content-type", "text/html"]
    assert (await command(local_azure, state_directory, "fault", "entra", "keys_v2", *stranger)).exit_code == 0
    null = ["--status", "200", "--body", "null", "--content-type", ""]
    assert (await command(local_azure, state_directory, "fault", "entra", "keys_v2", *null)).exit_code == 0
    async with aiohttp.ClientSession() as session:
        async with session.get(url) as response:
            assert (response.status, await response.read()) == (404, b"<h1>Not found</h1>\xff")
            assert response.headers["Content-Type"] == "text/html"
        async with session.get(url) as response:
            assert (response.status, await response.text()) == (200, "null")
            assert "Content-Type" not in response.headers


async def test_an_unknown_operation_is_answered_with_the_known_ones(
    local_azure: LocalAzure, state_directory: Path
) -> None:
    result = await command(local_azure, state_directory, "fault", "acs", "create_identities", "--status", "500")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "create_identities" in result.stderr
    assert "create_identity, delete_identity, exchange_teams_token" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["token", "--status", "200", "--body", "x", "--body-file", "pyproject.toml"], "exclude"),
        ([], "operation"),
        (["token"], "--status"),
        (["token", "--reset", "--hang"], "exclude"),
        (["token", "--status", "503", "--drop-answer"], "exclude"),
        (["token", "--status", "503", "--header", "Retry-After 2"], "--header"),
        (["token", "--status", "1000"], "--status"),
    ],
)
def test_a_fault_that_makes_no_sense_is_refused(arguments: list[str], named: str) -> None:
    result = CliRunner().invoke(main, ["fault", "entra", *arguments])
    assert result.exit_code == 2
    assert named in result.stderr


# Users, keys and identities


async def test_a_token_for_graph_is_printed(local_azure: LocalAzure, state_directory: Path) -> None:
    result = await command(local_azure, state_directory, "token", "--user", "megan", "--graph")
    claims = local_azure.entra.verify(result.stdout.strip())
    assert claims is not None
    assert (claims["aud"], claims["scp"]) == ("https://graph.microsoft.com", "User.ReadWrite")
    both = await command(local_azure, state_directory, "token", "--teams", "--graph")
    assert both.exit_code == 2


async def test_a_token_with_which_its_user_may_ask_for_colleagues_is_printed(
    local_azure: LocalAzure, state_directory: Path
) -> None:
    result = await command(local_azure, state_directory, "token", "--resolve")
    claims = local_azure.entra.verify(result.stdout.strip())
    assert claims is not None
    assert claims["scp"] == "access_as_user resolve_users"
    assert (await command(local_azure, state_directory, "token", "--resolve", "--graph")).exit_code == 2


async def test_users_are_marked_deleted_restored_and_purged(local_azure: LocalAzure, state_directory: Path) -> None:
    async def run(*arguments: str) -> str:
        result = await command(local_azure, state_directory, *arguments)
        return "" if result.exit_code == 0 else result.stderr

    assert await run("mark-user", "megan", "--directory-role", "--without-teams") == ""
    assert await run("delete-user", "megan") == ""
    listed = (await command(local_azure, state_directory, "users")).stdout.splitlines()
    assert [line for line in listed if "(" in line.split("@")[-1]] == [listed[1]]
    assert listed[1].endswith("(directory role, without teams, deleted)")
    assert await run("restore-user", "megan") == ""
    assert await run("mark-user", "megan") == ""
    assert "(" not in (await command(local_azure, state_directory, "users")).stdout.splitlines()[1]
    assert await run("purge-user", "megan") == ""
    assert "can't be restored" in await run("restore-user", "megan")
    assert "known are alex, megan" in await run("delete-user", "nobody")


async def test_the_answer_for_a_deleted_identity_is_changed(local_azure: LocalAzure, state_directory: Path) -> None:
    arguments = ["deleted-identity", "--status", "400", "--code", "Gone", "--message", "No more."]
    assert (await command(local_azure, state_directory, *arguments)).exit_code == 0
    assert local_azure.acs.deleted_identities.answer == DeletedIdentityAnswer(400, "Gone", "No more.")
    assert (await command(local_azure, state_directory, "deleted-identity", "--reset")).exit_code == 0
    assert local_azure.acs.deleted_identities.answer == DeletedIdentityAnswer()


async def test_the_api_gets_a_key_of_its_own_and_loses_it(local_azure: LocalAzure, state_directory: Path) -> None:
    assert (await command(local_azure, state_directory, "own-key")).exit_code == 0
    assert local_azure.entra.keys.own(API.client_id) is not None
    assert (await command(local_azure, state_directory, "own-key", "--off")).exit_code == 0
    assert local_azure.entra.keys.own(API.client_id) is None


def test_no_summary_of_a_command_is_cut() -> None:
    listed = CliRunner().invoke(main, ["--help"], terminal_width=80).stdout.partition("Commands:")[2]
    assert "delete-user" in listed
    assert "..." not in listed


# rotate-keys


async def test_after_a_rotation_tokens_of_the_old_key_are_good_until_it_retires(
    local_azure: LocalAzure, state_directory: Path
) -> None:
    old = local_azure.entra.access_token("alex")
    assert (await command(local_azure, state_directory, "rotate-keys")).exit_code == 0
    new = local_azure.entra.access_token("alex")
    assert local_azure.entra.verify(old) is not None
    assert (await command(local_azure, state_directory, "rotate-keys", "--retire")).exit_code == 0
    assert local_azure.entra.verify(old) is None
    assert local_azure.entra.verify(new) is None
    assert local_azure.entra.verify(local_azure.entra.access_token("alex")) is not None


# run: what is checked before anything starts


@pytest.mark.parametrize("option", PORT_OPTIONS)
def test_a_busy_port_is_named_with_its_option_before_anything_starts(
    option: str, free_ports: list[int], tmp_path: Path
) -> None:
    with listening_socket() as taken:
        free_ports[PORT_OPTIONS.index(option)] = taken
        result = CliRunner().invoke(main, ["run", "--state-dir", str(tmp_path / "state"), *port_arguments(free_ports)])
    assert result.exit_code == 1
    assert re.fullmatch(
        rf"Port {taken} is in use( by .+ \(process {os.getpid()}\))?: free it, or choose another one with {option}, "
        r"or all together with --base-port\.\n",
        result.stderr,
    )
    assert not (tmp_path / "state").exists()


def test_all_busy_ports_are_named_in_one_sentence(free_ports: list[int], tmp_path: Path) -> None:
    with listening_socket() as one, listening_socket() as two:
        free_ports[1], free_ports[4] = one, two
        result = CliRunner().invoke(main, ["run", "--state-dir", str(tmp_path), *port_arguments(free_ports)])
    assert len(result.stderr.splitlines()) == 1
    who = rf"( by .+ \(process {os.getpid()}\))?"
    assert re.match(rf"Ports {one} and {two} are in use{who}: free them, or choose others", result.stderr)
    assert "with --entra-port and --cosmos-port, or all together with --base-port." in result.stderr


@pytest.mark.parametrize("origin", ["localhost:3000", "http://localhost:3000/", "ftp://x", "http://", "*"])
def test_what_is_no_origin_is_refused(origin: str) -> None:
    result = CliRunner().invoke(main, ["run", "--origin", origin])
    assert result.exit_code == 2
    assert "is not an origin" in result.stderr


def test_one_port_for_two_purposes_is_busy_too(free_ports: list[int], tmp_path: Path) -> None:
    free_ports[PORT_OPTIONS.index("--acs-port")] = free_ports[PORT_OPTIONS.index("--entra-port")]
    result = CliRunner().invoke(main, ["run", "--state-dir", str(tmp_path / "state"), *port_arguments(free_ports)])
    assert result.exit_code == 1
    assert "--acs-port" in result.stderr


def test_the_first_line_says_what_this_is_for(free_ports: list[int], tmp_path: Path) -> None:
    arguments = port_arguments([free_ports[0]] * len(PORT_OPTIONS))
    first = CliRunner().invoke(main, ["run", "--state-dir", str(tmp_path), *arguments]).stdout.splitlines()[0]
    assert "development only" in first
    assert "loopback" in first


def test_a_state_directory_that_cannot_be_made_is_named(free_ports: list[int], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    arguments = port_arguments(free_ports)
    result = CliRunner().invoke(main, ["run", "--state-dir", str(tmp_path / "file" / "state"), *arguments])
    assert result.exit_code == 1
    assert str(tmp_path / "file" / "state") in result.stderr
    assert len(result.stderr.splitlines()) == 1


# The service's environment


@pytest.mark.parametrize(
    "name",
    [
        "ACS_ENDPOINT",
        "COSMOS_KEY",
        "DOCS_CLIENT_ID",
        "ENTRA_ALLOWED_TENANTS",
        "GRAPH_BASE_URL",
        "HOST",
        "OIDC_ISSUER",
        "PORT",
        "STORAGE_BACKEND",
        "TEAMS_CLIENT_IDS",
        "azureActiveDirectory_clientId",
        "communicationServices_connectionString",
    ],
)
def test_settings_of_a_real_deployment_do_not_reach_the_local_service(name: str) -> None:
    assert name not in environment({name: "real"}, {})
    assert environment({name: "real"}, {name: "local"})[name] == "local"


def test_everything_else_in_the_environment_stays() -> None:
    inherited = {"PATH": "/bin", "HOSTNAME": "here", "PORTAGE": "1", "ENVIRONMENT_NAME": "x"}
    assert inherited.items() <= environment(inherited, {}).items()


def test_calls_to_the_stand_ins_bypass_a_proxy() -> None:
    assert environment({"NO_PROXY": "corp.example"}, {})["NO_PROXY"] == "corp.example,localhost,127.0.0.1"
    assert environment({}, {})["no_proxy"] == "localhost,127.0.0.1"


@pytest.mark.parametrize(("code", "status"), [(2, 2), (0, 1), (-9, 137)])
def test_the_services_end_is_passed_on_and_never_as_success(code: int, status: int) -> None:
    assert ServiceEnded(code, "unexpectedly", Path("service.log")).status == status
