"""Whatever is rotated, retired and restarted: exactly the tokens of published keys are valid."""

import itertools
import tempfile
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from local_azure.entra.signing_keys import SigningKeys
from local_azure.state import State


def test_exactly_the_tokens_of_published_keys_are_valid(signing_keys: list[rsa.RSAPrivateKey]) -> None:
    pool = itertools.cycle(signing_keys)

    class Rollover(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.directory = tempfile.TemporaryDirectory()
            self.start()
            self.signed: list[tuple[str, str]] = []  # token, the key that signed it
            self.published: set[str] = {key.kid for key in self.keys.published}

        def start(self) -> None:
            self.state = State(Path(self.directory.name))
            self.keys = SigningKeys(self.state, lambda: 1_800_000_000.0, lambda: next(pool))

        @rule()
        def sign(self) -> None:
            self.signed.append((self.keys.sign({}), self.keys.current.kid))

        @rule()
        def rotate(self) -> None:
            before = self.keys.current.kid
            new = self.keys.rotate().kid
            assert new == self.keys.current.kid != before
            self.published.add(new)

        @rule()
        def retire(self) -> None:
            self.published = {self.keys.current.kid}
            self.keys.retire()

        @rule()
        def restart(self) -> None:
            self.state.close()
            self.start()

        @invariant()
        def the_tokens_of_published_keys_and_no_others_verify(self) -> None:
            assert {key.kid for key in self.keys.published} == self.published
            assert all((self.keys.verify(token) is not None) == (kid in self.published) for token, kid in self.signed)

        def teardown(self) -> None:
            self.state.close()
            self.directory.cleanup()

    quick = settings(max_examples=8, stateful_step_count=10, deadline=None, database=None, derandomize=True)
    run_state_machine_as_test(Rollover, settings=quick)
