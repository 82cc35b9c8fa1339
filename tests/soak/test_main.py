"""`python -m soak`: what can be run is what lies in the package."""

import pytest

from soak.__main__ import main, proofs


@pytest.mark.parametrize("arguments", [[], ["unheard-of"]])
def test_without_a_known_name_the_proofs_are_listed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    told = capsys.readouterr().err
    assert {"crash", "chaos", "machine", "fuzz"} <= proofs().keys()
    assert all(name in told for name in proofs())


def test_a_proof_gets_the_arguments_after_its_name() -> None:
    with pytest.raises(SystemExit) as ended:
        main(["crash", "--help"])
    assert ended.value.code == 0
