"""Absence needs proof: what ACS's answers about an identity allow, and what they never do."""

from collections.abc import AsyncIterator

import pytest
from quart import Quart
from quart.typing import TestClientProtocol as Client

from local_azure.acs import IDENTITY_OPERATIONS, DeletedIdentityAnswer
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.acs.absence import UNLEARNED_PAUSE_SECONDS, AbsenceUnproven, ProvingAcsClient
from quart_app.acs.client import _AcsAnswer, _unproven
from quart_app.acs.interface import (
    AcsError,
    AcsToken,
    AcsUnavailable,
    Answered,
    IdentityGone,
    IdentityNotOwned,
    IdentityRefused,
    TokenRequest,
    UnexpectedAnswer,
)
from quart_app.acs.refusals import CREDENTIAL_REFUSED
from quart_app.app import create_app
from quart_app.settings import Settings
from tests.conftest import FakeClock
from tests.quart_app.conftest import Bearer
from tests.support.memory_acs import MemoryAcsClient
from tests.support.scripted import FailAfter, FailBefore

ANSWERS = {
    "known message": DeletedIdentityAnswer(),
    "404": DeletedIdentityAnswer(404, "ResourceNotFound", "x"),
    "401": DeletedIdentityAnswer(401, "IdentityDeleted", "There was one."),
    "400": DeletedIdentityAnswer(400, "BadRequest", "No."),
    "403": DeletedIdentityAnswer(403, "Forbidden", "No."),
}


async def error_of(answer: object) -> tuple[int, str]:
    body = await answer.get_json()  # type: ignore[attr-defined]
    return body["code"], body["error"]


class TestOverTheWire:
    @pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
    async def test_whatever_a_deleted_identity_is_answered_deletion_and_repair_work(
        self, client: Client, bearer: Bearer, local_azure: LocalAzure, answer: DeletedIdentityAnswer
    ) -> None:
        local_azure.acs.deleted_identities.answer = answer
        created = await (await client.post("/api/user", headers=bearer("alex"))).get_json()
        local_azure.acs.forget(created["acsUserIdentity"])
        assert await error_of(await client.get("/api/token", headers=bearer("alex"))) == (409, "identity_gone")
        assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
        again = await client.post("/api/user", headers=bearer("alex"))
        assert again.status_code == 201
        assert local_azure.acs.live_identities() == [(await again.get_json())["acsUserIdentity"]]

    async def test_an_endpoint_that_knows_no_identity_at_all_loses_nothing(
        self, client: Client, bearer: Bearer, local_azure: LocalAzure
    ) -> None:
        created = await (await client.post("/api/user", headers=bearer("alex"))).get_json()
        unknown = {"error": {"code": "ResourceNotFound", "message": "x"}}
        for operation in IDENTITY_OPERATIONS:
            local_azure.acs.faults.script(operation, Fault(status=404, body=unknown, times=None))
        refused = (502, "unexpected_upstream_answer")
        assert await error_of(await client.get("/api/token", headers=bearer("alex"))) == refused
        assert await error_of(await client.delete("/api/user", headers=bearer("alex"))) == refused
        assert await error_of(await client.delete("/api/user", headers=bearer("alex"))) == refused
        assert created["acsUserIdentity"] in local_azure.acs.live_identities()
        assert local_azure.acs.faults.counts["create_identity"] == 2  # the user's own, and one canary
        local_azure.acs.faults.clear()
        assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
        assert created["acsUserIdentity"] not in local_azure.acs.live_identities()

    async def test_a_gateway_without_acs_own_form_is_passing_trouble(
        self, client: Client, bearer: Bearer, local_azure: LocalAzure
    ) -> None:
        await client.post("/api/user", headers=bearer("alex"))
        page = Fault(status=404, body="<html>not here</html>", content_type="text/html", times=None)
        local_azure.acs.faults.script("issue_access_token", page)
        status, name = await error_of(await client.get("/api/token", headers=bearer("alex")))
        assert (status, name) in {(503, "service_unavailable"), (502, "unexpected_upstream_answer")}
        assert len(local_azure.acs.live_identities()) == 1


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Quart]:
    async with create_app(settings) as app:
        yield app


class OddAcs(MemoryAcsClient):
    """Answers `gone` for a deleted identity, and `foreign` for one of another resource."""

    def __init__(self, gone: AcsError, foreign: AcsError | None = None) -> None:
        super().__init__()
        self.gone = gone
        self.foreign = foreign or IdentityNotOwned()

    async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
        try:
            return await super().issue_token(acs_user_id)
        except IdentityGone:
            raise self.gone from None
        except IdentityNotOwned:
            raise self.foreign from None


def refused(status: int = 404, code: str = "Odd") -> IdentityRefused:
    return IdentityRefused(Answered(status, code), UnexpectedAnswer(status))


class TestTheCanary:
    async def test_it_is_sent_once_and_leaves_nothing_behind(self) -> None:
        acs = OddAcs(refused())
        proving = ProvingAcsClient(acs)
        lost = await acs.create_identity()
        acs.live.clear()
        for _ in range(3):
            with pytest.raises(IdentityGone):
                await proving.issue_token(lost)
        assert (len(acs.minted), acs.live) == (2, set())

    @pytest.mark.parametrize("other", [(404, "Other"), (400, "Odd")])
    async def test_another_status_or_code_is_not_gone(self, other: tuple[int, str]) -> None:
        acs = OddAcs(refused())
        proving = ProvingAcsClient(acs)
        living = await acs.create_identity()
        acs.script("issue_token", FailBefore(refused(*other)))
        with pytest.raises(UnexpectedAnswer):
            await proving.issue_token(living)

    async def test_one_answer_for_deleted_and_foreign_identities_proves_nothing(self) -> None:
        acs = OddAcs(refused(), foreign=refused())
        proving = ProvingAcsClient(acs)
        with pytest.raises(AbsenceUnproven, match="the same"):
            await proving.prove()
        with pytest.raises(UnexpectedAnswer):
            await proving.issue_token("8:acs:foreign_1")
        assert acs.live == set()

    async def test_a_canary_that_gets_no_token_proves_nothing_and_is_not_minted_again_and_again(self) -> None:
        acs, clock = OddAcs(refused()), FakeClock(0)
        acs.script("issue_token", FailBefore(refused()), None)
        acs.script("delete_identity", FailBefore(refused()), None)
        proving = ProvingAcsClient(acs, timer=clock)
        for _ in range(5):
            with pytest.raises(AbsenceUnproven, match="no token"):
                await proving.prove()
            clock.advance(UNLEARNED_PAUSE_SECONDS)
        assert len(acs.minted) == 1

    async def test_a_canary_that_could_not_be_deleted_is_used_again(self) -> None:
        acs, clock = OddAcs(refused()), FakeClock(0)
        acs.script("delete_identity", FailBefore(refused()))
        proving = ProvingAcsClient(acs, timer=clock)
        with pytest.raises(AbsenceUnproven, match="does not delete"):
            await proving.prove()
        assert acs.live == set(acs.minted)
        clock.advance(UNLEARNED_PAUSE_SECONDS)
        await proving.prove()
        assert (len(acs.minted), acs.live) == (1, set())

    async def test_the_learned_answer_and_no_other_means_gone_for_a_revocation_too(self) -> None:
        acs = OddAcs(refused())
        proving = ProvingAcsClient(acs)
        acs.script("revoke_tokens", FailBefore(refused()))
        acs.script("revoke_tokens", FailBefore(refused(403)))
        living = await acs.create_identity()
        with pytest.raises(IdentityGone):
            await proving.revoke_tokens(living)
        with pytest.raises(UnexpectedAnswer) as caught:
            await proving.revoke_tokens(living)
        assert caught.value.status == 403

    async def test_a_second_deletion_that_is_answered_as_for_a_foreign_identity_proves_nothing(self) -> None:
        class Disowning(OddAcs):
            async def delete_identity(self, acs_user_id: str) -> None:
                if acs_user_id not in self.live:
                    raise IdentityNotOwned
                await super().delete_identity(acs_user_id)

        acs = Disowning(refused())
        with pytest.raises(AbsenceUnproven, match="the same answer"):
            await ProvingAcsClient(acs).prove()
        assert (len(acs.minted), acs.live) == (1, set())

    async def test_a_deleted_identity_that_gets_a_token_proves_nothing(self) -> None:
        class Forgiving(MemoryAcsClient):
            async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
                return AcsToken("token", "2026-11-23T00:00:00.0000000+00:00")

        with pytest.raises(AbsenceUnproven, match="deleted a moment ago"):
            await ProvingAcsClient(Forgiving()).prove()

    async def test_trouble_on_the_way_is_passed_on_and_the_next_refusal_tries_again(self) -> None:
        acs = OddAcs(refused())
        proving = ProvingAcsClient(acs)
        acs.script("delete_identity", FailAfter(AcsUnavailable()))
        with pytest.raises(AcsUnavailable):
            await proving.prove()
        await proving.prove()
        assert (len(acs.minted), acs.live) == (2, set())

    async def test_without_canaries_only_the_known_message_counts(self) -> None:
        acs = OddAcs(refused())
        proving = ProvingAcsClient(acs, canaries=False)
        lost = await acs.create_identity()
        acs.live.clear()
        with pytest.raises(UnexpectedAnswer):
            await proving.issue_token(lost)
        acs.gone = IdentityGone()
        with pytest.raises(IdentityGone):
            await proving.issue_token(lost)
        assert len(acs.minted) == 1


@pytest.mark.parametrize(
    ("status", "code", "may_mean_gone"),
    [
        (404, "ResourceNotFound", True),
        (401, "IdentityDeleted", True),
        (400, "BadRequest", True),
        (401, CREDENTIAL_REFUSED, False),
        (404, None, False),
        (302, "Found", False),
        *((status, "InternalError", False) for status in (500, 501, 600)),
    ],
)
def test_only_a_refusal_of_acs_itself_that_is_not_about_the_service_may_mean_that_an_identity_is_gone(
    status: int, code: str | None, may_mean_gone: bool
) -> None:
    otherwise = UnexpectedAnswer(status)
    told = _unproven(_AcsAnswer(status, {}, code, "", ""), otherwise)
    assert isinstance(told, IdentityRefused) is may_mean_gone
    assert may_mean_gone or told is otherwise
