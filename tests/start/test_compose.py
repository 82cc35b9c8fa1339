"""compose.yaml and the dev container fit the stand-ins and the service; what compose would start is started here."""

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import aiohttp
import click
import pytest
import yaml

from local_azure.cli import main as local_commands
from local_azure.environment import STAND_IN_NAMES, Ports
from local_azure.service_process import ServiceProcess
from quart_app.serving.server import CLOSING_SECONDS, DRAIN_SECONDS, TELEMETRY_SECONDS
from quart_app.settings import ServerSettings, load_settings, variable_names
from tests.local_azure.test_run import running
from tests.support.ports import some_free_ports

ROOT = Path(__file__).parent.parent.parent
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
STAND_INS, SERVICE = COMPOSE["services"]["stand-ins"], COMPOSE["services"]["service"]
TRUST = {"SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"}
EXPORT = re.compile(r"  export (\w+)=(.+)")
PORTS = {"service": ServerSettings.model_fields["port"].default, **asdict(Ports())}


def parsed(command: list[str]) -> dict[str, Any]:
    """The options of a command of `acs-auth-local`, as click reads them; raises `click.UsageError`."""
    name, *arguments = command
    found = local_commands.commands[name]
    with found.make_context(name, arguments) as context:
        return dict(context.params)


def seconds(duration: str) -> int:
    number = re.fullmatch(r"(\d+)s", duration)
    assert number
    return int(number[1])


def test_every_port_is_published_and_only_to_this_machine() -> None:
    published = [re.sub(r"\$\{\w+:-(\d+)\}", r"\1", each) for each in STAND_INS["ports"]]
    assert published == [f"127.0.0.1:{port}:{port}" for port in PORTS.values()]
    assert "ports" not in SERVICE


def test_the_service_shares_the_network_of_the_stand_ins_and_waits_for_them() -> None:
    assert SERVICE["network_mode"] == "service:stand-ins"
    assert SERVICE["depends_on"]["stand-ins"]["condition"] == "service_healthy"


def test_the_commands_of_the_stand_ins_exist() -> None:
    run = parsed(STAND_INS["command"])
    assert (run["no_service"], run["host"], run["storage"]) == (
        True,
        "0.0.0.0",
        SERVICE["environment"]["STORAGE_BACKEND"],
    )
    kind, program, *arguments = STAND_INS["healthcheck"]["test"]
    assert (kind, program) == ("CMD", "acs-auth-local")
    assert parsed(arguments)["state_dir"] == parsed(STAND_INS["command"])["state_dir"]


def test_both_find_the_state_where_the_volume_is() -> None:
    (kept,), (read,) = STAND_INS["volumes"], SERVICE["volumes"]
    volume, where = kept.split(":")
    assert volume in COMPOSE["volumes"]
    home = re.search(r"^WORKDIR (/home\S+)$", (ROOT / "local_azure/Dockerfile").read_text(), re.MULTILINE)
    assert home
    assert where == str(Path(home[1]) / parsed(STAND_INS["command"])["state_dir"])
    volume_again, directory, mode = read.split(":")
    assert (volume_again, mode) == (volume, "ro")
    assert {SERVICE["environment"][name] for name in TRUST} == {f"{directory}/ca.pem"}


def test_a_stop_is_waited_for_until_its_last_stage() -> None:
    longest_delay = 10
    assert seconds(SERVICE["stop_grace_period"]) >= longest_delay + DRAIN_SECONDS + CLOSING_SECONDS + TELEMETRY_SECONDS


def test_the_service_is_given_settings_with_which_it_shows_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    given = SERVICE["environment"]
    for name in variable_names():
        monkeypatch.delenv(name, raising=False)
    for name in given.keys() - TRUST:
        monkeypatch.setenv(name, given[name])
    assert load_settings(None).server.shows_console
    assert not {"ACS_CONNECTION_STRING", "COSMOS_KEY", "ENTRA_CLIENT_SECRET"} & given.keys()


async def test_what_compose_starts_serves_a_token(tmp_path: Path) -> None:
    """The same commands and variables, but for ports that are free here and a directory in place of the volume."""
    async with running(tmp_path, *STAND_INS["command"][1:]) as stand_ins:
        ports = re.findall(r"https://localhost:(\d+)", stand_ins.output)[: len(STAND_IN_NAMES)]
        text = json.dumps(SERVICE["environment"]).replace("/local-azure/", f"{tmp_path}/")
        for fixed, chosen in zip(asdict(Ports()).values(), ports, strict=True):
            text = text.replace(f"localhost:{fixed}", f"localhost:{chosen}")
        given: dict[str, str] = json.loads(text)
        printed = {name: shlex.split(value)[0] for name, value in EXPORT.findall(stand_ins.output)}
        assert printed.keys() - given.keys() == {"HOST", "PORT", "GRAPH_SEAL_KEYS", "SQLITE_PATH"}
        differing = {name for name, value in given.items() if printed[name] != value}
        assert differing == {"CORS_ALLOWED_ORIGINS"}  # not all of them
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PORT": str(some_free_ports()[0])}
        async with ServiceProcess(own | given, tmp_path, tmp_path / "service.log") as service:
            await service.ready()
            headers = {"Authorization": f"Bearer {await access_token(tmp_path)}"}
            async with aiohttp.ClientSession(service.url, headers=headers) as session:
                answers = []
                for method, path in (("POST", "/api/user"), ("GET", "/api/token")):
                    async with session.request(method, path) as answer:
                        answers.append(answer.status)
        assert await stand_ins.end(signal.SIGTERM) == 0
    assert answers == [201, 201]


async def access_token(state: Path) -> str:
    """What `docker compose exec stand-ins acs-auth-local token` prints."""
    asking = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local_azure.cli", "token", "--state-dir", str(state)), stdout=asyncio.subprocess.PIPE
    )
    printed, _ = await asyncio.wait_for(asking.communicate(), 120)
    return printed.decode().strip()


@pytest.mark.parametrize("dockerfile", ["Dockerfile", "local_azure/Dockerfile"])
def test_what_an_image_copies_is_let_through(dockerfile: str) -> None:
    own = ROOT / f"{dockerfile}.dockerignore"
    lines = (own if own.exists() else ROOT / ".dockerignore").read_text().splitlines()
    let_through = {line.strip("!/") for line in lines if line.startswith("!")}
    copies = re.findall(r"^COPY (?!--from)(.+) \S+$", (ROOT / dockerfile).read_text(), re.MULTILINE)
    copied = {word.strip("/") for line in copies for word in line.split()}
    assert "*" in lines
    assert copied == let_through
    assert all((ROOT / each).exists() for each in copied)


def test_compose_builds_from_these_dockerfiles() -> None:
    assert STAND_INS["build"] == {"context": ".", "dockerfile": "local_azure/Dockerfile"}
    assert SERVICE["build"] == "."


def test_the_dev_container_forwards_every_port_to_the_same_one_of_this_machine() -> None:
    text = (ROOT / ".devcontainer/devcontainer.json").read_text()
    content = json.loads(re.sub(r"^\s*//.*$|\s//\s.*$", "", text, flags=re.MULTILINE))
    assert content["forwardPorts"] == list(PORTS.values())
    for name, port in PORTS.items():
        attributes = content["portsAttributes"][str(port)]
        assert attributes["requireLocalPort"] is True  # a sign-in returns there
        assert attributes.get("protocol", "http") == ("http" if name == "service" else "https")
    target = content["postCreateCommand"].removeprefix("make ")
    assert f"$({'VENV'}){target.removeprefix('.venv')}:" in (ROOT / "Makefile").read_text()


def test_a_command_that_does_not_exist_would_be_noticed() -> None:
    with pytest.raises(click.UsageError):
        parsed(["run", "--no-such-option"])
