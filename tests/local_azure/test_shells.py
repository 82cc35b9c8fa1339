"""What a person copies from the output means in their shell what was meant."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local_azure.shells import SHELLS, usual_shell

VALUES = st.text(st.characters(exclude_characters="\0\r\n", exclude_categories=["Cs"]))


def test_each_platform_has_its_usual_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = {}
    for platform in ("linux", "darwin", "win32"):
        monkeypatch.setattr(sys, "platform", platform)
        usual[platform] = usual_shell()
    assert usual == {"linux": "sh", "darwin": "sh", "win32": "powershell"}


@pytest.mark.parametrize("value", ["plain", "a;b", "it's", "$HOME", '"', "a b\\", "endpoint=https://x/;accesskey=a=="])
def test_a_posix_shell_sets_exactly_the_value(value: str) -> None:
    script = f'{SHELLS["sh"].setting("NAME", value)}; printf %s "$NAME"'
    assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == value


@given(VALUES)
def test_powershell_is_given_a_literal_that_means_the_value(value: str) -> None:
    setting = SHELLS["powershell"].setting("NAME", value)
    literal = setting.removeprefix("$env:NAME = ")
    assert (literal[0], literal[-1]) == ("'", "'")
    inside = literal[1:-1]
    assert inside.replace("''", "").count("'") == 0  # none of them ends it
    assert inside.replace("''", "'") == value


def test_what_a_command_prints_is_kept() -> None:
    kept = SHELLS["sh"].output_of("NAME", [sys.executable, "-c", "print('a b')"])
    done = subprocess.run(["sh", "-c", f'{kept}; printf %s "$NAME"'], capture_output=True, text=True, check=True)
    assert done.stdout == "a b"
    assert SHELLS["powershell"].output_of("NAME", ["C:\\it's\\x", "run"]) == "$NAME = & 'C:\\it''s\\x' 'run'"
