"""The service keeps its OpenAPI document, and nothing that anybody sends makes it fail.

`make soak ARGS=fuzz` is the long form.
"""

from pathlib import Path

from soak.deployment import deployed
from soak.fuzz import fuzz, try_document
from tests.conftest import LOGS

SEED = 15


async def test_the_service_keeps_its_document_and_no_request_makes_it_fail(tmp_path: Path) -> None:
    async with deployed(tmp_path, "sqlite", 1) as deployment:
        try:
            async with deployment.process() as service:
                await service.ready()
                bearer = deployment.bearer(deployment.users[0])["Authorization"]
                trial = await try_document(service.url, bearer, tmp_path, examples=5, seed=SEED)
                assert trial.status == 0, trial.told
                done = await fuzz(deployment, service.url, requests=1_000, seed=SEED)
                assert done.broken == []
                assert done.answers["200"] > 50
                assert done.answers["401 invalid_token"] > 50
        finally:
            LOGS.read("".join(log.read_text() for log in deployment.logs))
