"""What the answers look like, member for member as they stand in the JSON."""

from typing import Annotated, NotRequired

from pydantic import ConfigDict, Field
from typing_extensions import TypedDict

from quart_app.auth.refusals import Reason

EXAMPLE_TOKEN = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.e30.c2ln"  # noqa: S105 (a form, no token)

AcsUserId = Annotated[
    str,
    Field(
        description="The id of an ACS user.",
        examples=["8:acs:016a7064-0581-40b9-be73-6dde64d69d72_0000000f-31c8-6f1e-d68a-0848220037ba"],
    ),
]
Token = Annotated[
    str,
    Field(description="For CallClient and ChatClient; a JWT.", examples=[EXAMPLE_TOKEN]),
]
ExpiresOn = Annotated[
    str,
    Field(
        description="When the token ends.",
        examples=["2026-11-23T09:48:02.7233445+00:00"],
        json_schema_extra={"format": "date-time"},
    ),
]


class AcsUser(TypedDict):
    """The caller's ACS identity."""

    acsUserIdentity: AcsUserId


ObjectId = Annotated[
    str,
    Field(
        description="A user's object id (`oid`) in Microsoft Entra ID, in upper or lower case.",
        pattern="^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$",
        max_length=36,
        examples=["a1e5c0de-0001-4a6b-8f21-6d0c3b9e4f01"],
    ),
]


class UsersToResolve(TypedDict):
    """Whose ACS identities are asked for: users of the caller's own tenant."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # type: ignore[misc]

    userIds: Annotated[list[ObjectId], Field(max_length=100)]


class ResolvedUser(TypedDict):
    """A user who has an ACS identity."""

    userId: Annotated[
        str, Field(description="The object id, in lower case.", examples=["a1e5c0de-0001-4a6b-8f21-6d0c3b9e4f01"])
    ]
    acsUserIdentity: AcsUserId


class ResolvedUsers(TypedDict):
    """Those of the users who have an ACS identity, each once, in the order in which they were asked for."""

    users: list[ResolvedUser]


class CommunicationUser(TypedDict):
    """Whose token it is."""

    communicationUserId: AcsUserId


class AcsUserToken(TypedDict):
    """An ACS access token for the caller's identity."""

    token: Token
    expiresOn: ExpiresOn
    user: CommunicationUser


class TeamsUserToken(TypedDict):
    """An ACS access token for the caller as a Teams user."""

    token: Token
    expiresOn: ExpiresOn


class ProtectedResource(TypedDict):
    """The metadata of a protected resource (RFC 9728, section 2)."""

    resource: Annotated[
        str,
        Field(
            description="The URL that the document is about.",
            examples=["https://auth.contoso.com"],
            json_schema_extra={"format": "uri"},
        ),
    ]
    authorization_servers: Annotated[
        list[Annotated[str, Field(json_schema_extra={"format": "uri"})]],
        Field(
            description="The issuers whose access tokens are taken.",
            examples=[["https://id.contoso.com"]],
        ),
    ]
    scopes_supported: Annotated[
        list[str],
        Field(
            description="What to ask for at sign-in.",
            examples=[["api://5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e01/access_as_user"]],
        ),
    ]
    bearer_methods_supported: Annotated[
        list[str], Field(description="How the access token is sent.", examples=[["header"]])
    ]
    resource_name: Annotated[str, Field(description="For people.", examples=["ACS authentication service"])]
    resource_documentation: Annotated[
        str,
        Field(
            description="A page for developers.",
            examples=["https://auth.contoso.com/docs"],
            json_schema_extra={"format": "uri"},
        ),
    ]


class Error(TypedDict):
    """Every refusal and failure. `/openapi.json` says which names each status has."""

    code: Annotated[int, Field(description="The HTTP status.")]
    error: Annotated[str, Field(description="A stable name to branch on.")]
    message: Annotated[str, Field(description="What to do.")]
    requestId: Annotated[str, Field(description="Quote it when you report a problem.")]
    reason: NotRequired[
        Annotated[
            str,
            Field(
                description="Why the token was refused; outside development only `expired` is given.",
                json_schema_extra={"enum": [*map(str, Reason)]},
            ),
        ]
    ]
    stack_trace: NotRequired[
        Annotated[str, Field(description="Where an error of the service was raised; only in development.")]
    ]


class Health(TypedDict):
    """The state of the service, and of each part that was checked."""

    status: Annotated[str, Field(description="Of the service as a whole.", examples=["ok", "unavailable"])]
    checks: NotRequired[
        Annotated[
            dict[str, str],
            Field(description="Of each part that it needs.", examples=[{"signing_keys": "ok", "mapping_store": "ok"}]),
        ]
    ]
