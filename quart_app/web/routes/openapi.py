"""The OpenAPI 3.1 document, made from the routes themselves and the descriptions that they carry."""

from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from quart import Quart

from quart_app.auth.guard import ACCESS
from quart_app.auth.issuers import SignIn
from quart_app.web.error_names import names_of
from quart_app.web.routes import models
from quart_app.web.routes.description import Answer, RouteDescription, description_of

_COMMON = (
    Answer(401, "No valid access token for this API."),
    Answer(403, "The access token lacks the scope of this API."),
    Answer(413, "The request body is larger than 16 KiB. Where the route takes none, a smaller one is ignored."),
    Answer(429, "The caller sends too many requests; repeat after the time in Retry-After."),
    Answer(503, "Busy or unreachable at the moment; repeat after the time in Retry-After."),
)
_TAGS = {
    "user": "The caller's ACS identity: one for each user, made once and kept.",
    "token": "ACS access tokens for the caller.",
    "users": "The ACS identities of the caller's colleagues, where the operator switched it on.",
    "older_names": "The names of Microsoft's samples, for clients that were written for them.",
    "protected_resource": "Where clients sign in, and with which scope (RFC 9728).",
    "health": "Whether the service can do its work; for the platform's probes.",
}
_HEADERS = {
    401: {"WWW-Authenticate": "The challenge of RFC 6750."},
    403: {"WWW-Authenticate": "The challenge of RFC 6750."},
    429: {"Retry-After": "In how many seconds to repeat the request."},
    503: {"Retry-After": "In how many seconds to repeat the request."},
}

_BY_TOKEN: list[dict[str, list[str]]] = [{"token": []}]
"""The `security` of an operation that needs another scope besides."""


def openapi_document(app: Quart) -> dict[str, Any]:
    """Describe every route of `app` that carries a description, with every answer it can give.

    How one gets in is added by `with_sign_in`.
    """
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    rooms = set()
    for rule in app.url_map.iter_rules():
        view = app.view_functions[rule.endpoint]
        description = description_of(view)
        if description is None:
            continue
        methods = sorted((rule.methods or set()) - {"HEAD", "OPTIONS"})
        for method in methods:
            operation = _operation(description, schemas, public=getattr(view, ACCESS, "") == "public")
            room, _, name = rule.endpoint.partition(".")
            operation["operationId"] = name if len(methods) == 1 else f"{name}_by_{method.lower()}"
            operation["tags"] = [room]
            rooms.add(room)
            paths.setdefault(rule.rule, {})[method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "ACS authentication service",
            "version": version("acs-auth-server"),
            "description": "Sign in, get your own Azure Communication Services identity and access tokens for it.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "externalDocs": {
            "description": "Identities and access tokens of Azure Communication Services",
            "url": "https://learn.microsoft.com/azure/communication-services/concepts/identity-model",
        },
        "servers": [{"url": "/", "description": "The service that this document comes from"}],
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items() if name in rooms],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def with_sign_in(document: dict[str, Any], sign_in: SignIn | None, *, by_token: bool = True) -> dict[str, Any]:
    """The document with its security schemes; while nobody knows where users sign in, the bearer scheme alone.

    Without `by_token` the bearer scheme is left out where there is a sign-in.
    """
    schemes: dict[str, Any] = {"token": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
    security: list[dict[str, list[str]]] = [{"token": []}]
    paths = document["paths"]
    if sign_in is not None:
        flow = {
            "authorizationUrl": sign_in.endpoints.authorization,
            "tokenUrl": sign_in.endpoints.token,
            "scopes": {
                **dict.fromkeys(sign_in.scopes, "Call this API as the signed-in user"),
                **dict.fromkeys(sign_in.scopes_besides, "Ask for the ACS identities of colleagues"),
            },
        }
        schemes = {
            sign_in.issuer: {"type": "oauth2", "flows": {"authorizationCode": flow}},
            **(schemes if by_token else {}),
        }
        besides = [{sign_in.issuer: [*sign_in.scopes, *sign_in.scopes_besides]}, *(security if by_token else [])]
        security = [{sign_in.issuer: list(sign_in.scopes)}, *(security if by_token else [])]
        paths = {
            path: {
                method: operation | ({"security": besides} if operation.get("security") == _BY_TOKEN else {})
                for method, operation in item.items()
            }
            for path, item in paths.items()
        }
    components = {**document["components"], "securitySchemes": schemes}
    return {**document, "paths": paths, "components": components, "security": security}


def _operation(description: RouteDescription, schemas: dict[str, Any], *, public: bool) -> dict[str, Any]:
    answers = {answer.status: answer for answer in (*(() if public else _COMMON), *description.answers)}
    operation: dict[str, Any] = {
        "summary": description.summary,
        "responses": {str(status): _response(answers[status], schemas) for status in sorted(answers)},
    }
    parameters = [
        {"name": header.name, "in": "header", "required": True, "description": header.description}
        | {"schema": {"type": "string", "pattern": r"\S"}}  # an empty one counts as missing
        for header in description.headers
    ] + [
        {"name": query.name, "in": "query", "required": False, "description": query.description}
        | {"schema": dict(query.schema)}
        for query in description.query
    ]
    if parameters:
        operation["parameters"] = parameters
    if description.body is not None:
        schema = _reference(description.body.model, schemas)
        operation["requestBody"] = {
            "required": True,
            "description": description.body.description,
            "content": {"application/json": {"schema": schema, "example": dict(description.body.example)}},
        }
    if description.scope_besides is not None:
        operation["description"] = f"The access token must carry the scope `{description.scope_besides}` besides."
        operation["security"] = _BY_TOKEN  # `with_sign_in` adds where it is got
    if description.older_name_of is not None:
        operation["deprecated"] = True
        operation["description"] = f"An older name of `{description.older_name_of}`; it stays."
    if public:
        operation["security"] = []
    return operation


def _response(answer: Answer, schemas: dict[str, Any]) -> dict[str, Any]:
    response: dict[str, Any] = {"description": answer.description}
    if answer.model is not None:
        response["content"] = {"application/json": {"schema": _reference(answer.model, schemas)}}
    elif answer.status >= HTTPStatus.BAD_REQUEST:
        response["content"] = {"application/json": {"schema": _error_schema(answer.status, schemas)}}
    headers = _HEADERS.get(answer.status, {})
    if headers:
        response["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()
        }
    return response


def _error_schema(status: int, schemas: dict[str, Any]) -> dict[str, Any]:
    """The error model, with the names that an answer with this status may carry."""
    names = [name.value for name in names_of(status)]
    return {"allOf": [_reference(models.Error, schemas), {"properties": {"error": {"enum": names}}}]}


def _reference(model: type, schemas: dict[str, Any]) -> dict[str, str]:
    if model.__name__ not in schemas:
        schema = TypeAdapter(model).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    return {"$ref": f"#/components/schemas/{model.__name__}"}
