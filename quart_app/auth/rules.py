"""Rules as data: what a token must say, one rule for each thing, both to judge it and to explain the verdict."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from quart_app.auth.refusals import InvalidAccessToken, Reason, TokenRefused


@dataclass(frozen=True, slots=True)
class Content:
    """What a token says: its header and its claims."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Rule:
    """One thing that a token must say, and what to answer if it does not.

    members   the claims that are looked at; those of the header as `header.NAME`
    expected  what they must be, in words
    remedy    what to do if they are not
    holds     whether they are, whatever the content is
    refusal   the error of a token that breaks the rule
    quoted    whether an operator may see what the members are; never if they say who the user is
    """

    members: tuple[str, ...]
    expected: str
    remedy: str
    holds: Callable[[Content], bool]
    refusal: Callable[[], TokenRefused]
    quoted: bool = True

    @property
    def reason(self) -> Reason:
        """The reason of the refusal."""
        return self.refusal().reason


def invalid(reason: Reason) -> Callable[[], TokenRefused]:
    """The `refusal` of a token that proves nothing."""
    return partial(InvalidAccessToken, reason)


def judge(content: Content, rules: Iterable[Rule]) -> None:
    """Raise the refusal of the first rule that `content` breaks."""
    for rule in rules:
        if not rule.holds(content):
            raise rule.refusal()


def words(value: Any) -> frozenset[str] | None:
    """A claim that lists words: separated by spaces (RFC 6749, section 3.3), or a JSON array of texts.

    `None` for anything else: it can't be read as a list of words.
    """
    listed = [word for word in value.split(" ") if word] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        return None
    return frozenset(listed)
