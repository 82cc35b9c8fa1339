"""What every test shares: trust in the local certificate authority, ready-made signing keys, running stand-ins."""

import itertools
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, settings

from local_azure.certificates import LocalAuthority
from local_azure.keys import KeyFactory, new_rsa_key
from tests.support.report import attack_summary, contract_matrix, documents_summary, wire_counts

# The same examples in every run, on machines of any speed.
settings.register_profile(
    "deterministic", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("deterministic")

# TLS contexts read these when they are made, some of them at import: they are set before any client is imported.
_trust = Path(tempfile.mkdtemp(prefix="acs-auth-tests-"))
LocalAuthority(_trust)
os.environ["SSL_CERT_FILE"] = os.environ["REQUESTS_CA_BUNDLE"] = str(_trust / "ca.pem")

from local_azure.cosmos import Cosmos  # noqa: E402
from local_azure.environment import LocalAzure, Ports  # noqa: E402
from quart_app.settings import Environment  # noqa: E402
from quart_app.telemetry.logs import configure_logging  # noqa: E402
from quart_app.web.overload import Lateness  # noqa: E402
from tests.support.blocking import event_loop_guarded  # noqa: E402
from tests.support.log_check import LogCheck  # noqa: E402
from tests.support.running_cosmos import running_cosmos  # noqa: E402

LOGS = LogCheck()


def pytest_configure() -> None:
    configure_logging(Environment.PRODUCTION, LOGS)


def pytest_unconfigure() -> None:
    """Remove this process's certificates; a worker process ends without running what `atexit` holds."""
    shutil.rmtree(_trust, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables that the tests recorded."""
    passed = terminalreporter.stats.get("passed", [])
    tables = {
        "storage contract: tests passed, by store and group": contract_matrix(passed),
        "requests on the wire, by call and fault (seconds)": wire_counts(passed),
        "documents": documents_summary(passed),
        "attack corpus": attack_summary([*passed, *terminalreporter.stats.get("failed", [])]),
    }
    for title, lines in tables.items():
        if lines:
            terminalreporter.write_sep("-", title)
            terminalreporter.write_line("\n".join(lines))


_SECRETS = ("ACS_CONNECTION_STRING", "COSMOS_KEY", "ENTRA_CLIENT_SECRET", "GRAPH_SEAL_KEYS")


class FakeClock:
    """Seconds since the epoch that pass only when told."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def unblocked_event_loop() -> Iterator[None]:
    """No code of the service may block the event loop."""
    with event_loop_guarded():
        yield


class NeverLate(Lateness):
    """A slow machine is no overload: what the service says must not depend on what else the machine does."""

    def start(self) -> None:
        """Measure nothing."""


@pytest.fixture(autouse=True, scope="session")
def never_late() -> Iterator[None]:
    """No application runs late, whose tests are those of `tests/quart_app/web/test_overload.py`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("quart_app.app.Lateness", NeverLate)
        yield


@pytest.fixture(autouse=True)
def logs() -> Iterator[LogCheck]:
    """No test may make any code log a token, a secret or who a user is."""
    yield LOGS
    told = LOGS.told()
    assert told == []


@pytest.fixture(scope="session")
def signing_keys() -> list[rsa.RSAPrivateKey]:
    """RSA keys are slow to make: every test takes the same ones in the same order."""
    return [new_rsa_key() for _ in range(4)]


@pytest.fixture
def new_key(signing_keys: list[rsa.RSAPrivateKey]) -> KeyFactory:
    keys: Iterator[rsa.RSAPrivateKey] = itertools.chain(signing_keys, iter(new_rsa_key, None))
    return lambda: next(keys)


@pytest.fixture
def state_directory(tmp_path: Path) -> Path:
    """A directory for stand-ins whose certificates this process trusts."""
    directory = tmp_path / "local-azure"
    shutil.copytree(_trust, directory)
    return directory


@pytest.fixture
async def local_azure(state_directory: Path, new_key: KeyFactory) -> AsyncIterator[LocalAzure]:
    """All stand-ins, running in the test's own event loop on ports that the system chose."""
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as running:
        LOGS.known.update(user.object_id for user in running.entra.users.values())
        LOGS.known.update(value for name, value in running.service_environment().items() if name in _SECRETS)
        yield running


@pytest.fixture
async def cosmos(state_directory: Path) -> AsyncIterator[Cosmos]:
    """Only the Cosmos DB stand-in."""
    async with running_cosmos(state_directory) as running:
        yield running


@pytest.fixture
def quick_cosmos_refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK repeats a refused account read three times, half a second apart: here it does not."""
    monkeypatch.setenv("AZURE_COSMOS_HEALTH_CHECK_MAX_RETRIES", "0")
