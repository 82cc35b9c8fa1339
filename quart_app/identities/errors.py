"""What can be wrong with a user's identity. Messages never hold an id."""


class IdentityError(Exception):
    """The user's identity can't be used."""


class IdentityNotFound(IdentityError):
    """The user has no identity, or it is being deleted."""

    def __init__(self) -> None:
        super().__init__("The user has no ACS identity.")


class MappedIdentityGone(IdentityError):
    """The user is mapped to an identity that ACS no longer knows."""

    def __init__(self) -> None:
        super().__init__("The mapped ACS identity no longer exists.")


class MappedIdentityNotOwned(IdentityError):
    """The user is mapped to an identity of another ACS resource."""

    def __init__(self) -> None:
        super().__init__("The mapped ACS identity belongs to another ACS resource.")


class TooManyFlights(IdentityError):
    """So many creations, deletions and sign-outs are under way that no more are begun."""

    def __init__(self) -> None:
        super().__init__("Too many creations, deletions and sign-outs are under way.")
