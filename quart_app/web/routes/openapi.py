"""The OpenAPI 3.1 document, made from the routes themselves and the descriptions that they carry."""

from collections.abc import Sequence
from copy import deepcopy
from functools import cache
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from quart import Quart

from quart_app.auth.doors import SignIn
from quart_app.auth.guard import ACCESS
from quart_app.web.error_examples import EXAMPLE_REQUEST_ID, example_of
from quart_app.web.error_names import ErrorName, names_of
from quart_app.web.errors import ErrorResponse
from quart_app.web.routes import models
from quart_app.web.routes.description import Answer, RouteDescription, description_of

_OF_EVERY_ROUTE = (
    Answer(413, "The request body is larger than 16 KiB. Where the route takes none, a smaller one is ignored."),
)
_OF_PROTECTED_ROUTES = (
    Answer(400, "The Authorization header is malformed.", error=ErrorName.INVALID_REQUEST),
    Answer(401, "No valid access token for this API."),
    Answer(403, "The access token lacks the scope of this API."),
    Answer(429, "The caller sends too many requests; repeat after the time in Retry-After."),
    Answer(502, "An upstream refused the service's own credential, or answered what the service does not know."),
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
_CHALLENGE = ("WWW-Authenticate", {"description": "The challenge of RFC 6750.", "schema": {"type": "string"}})
_RETRY_AFTER = (
    "Retry-After",
    {"description": "In how many seconds to repeat the request.", "schema": {"type": "integer", "minimum": 1}},
)
_HEADERS: dict[int, tuple[str, dict[str, Any]]] = {
    401: _CHALLENGE,
    403: _CHALLENGE,
    429: _RETRY_AFTER,
    503: _RETRY_AFTER,
}

_BY_TOKEN: list[dict[str, list[str]]] = [{"token": []}]
"""The `security` of an operation that also needs another scope."""
_WITH_REASON = (HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
"""Where a token was refused."""


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
        "components": {"schemas": dict(sorted(schemas.items()))},
    }


def with_sign_in(document: dict[str, Any], sign_ins: Sequence[SignIn], *, by_token: bool = True) -> dict[str, Any]:
    """The document with its security schemes: each of `sign_ins`, any of which is enough, and the bearer scheme.

    Without `by_token` the bearer scheme is left out where there is a sign-in.
    """
    schemes: dict[str, Any] = {}
    security: list[dict[str, list[str]]] = []
    besides: list[dict[str, list[str]]] = []
    for each in sign_ins:
        flow = {
            "authorizationUrl": each.endpoints.authorization,
            "tokenUrl": each.endpoints.token,
            "scopes": {
                **dict.fromkeys(each.scopes, "Call this API as the signed-in user"),
                **dict.fromkeys(each.scopes_besides, "Ask for the ACS identities of colleagues"),
            },
        }
        schemes[each.issuer] = {"type": "oauth2", "flows": {"authorizationCode": flow}}
        security.append({each.issuer: list(each.scopes)})
        if each.scopes_besides:
            besides.append({each.issuer: [*each.scopes, *each.scopes_besides]})
    if by_token or not sign_ins:
        schemes["token"] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        security += _BY_TOKEN
        besides += _BY_TOKEN
    paths = {
        path: {
            method: operation | ({"security": besides} if operation.get("security") == _BY_TOKEN else {})
            for method, operation in item.items()
        }
        for path, item in document["paths"].items()
    }
    components = {**document["components"], "securitySchemes": schemes}
    return {**document, "paths": paths, "components": components, "security": security}


def _operation(description: RouteDescription, schemas: dict[str, Any], *, public: bool) -> dict[str, Any]:
    common = _OF_EVERY_ROUTE if public else (*_OF_EVERY_ROUTE, *_OF_PROTECTED_ROUTES)
    answers = {answer.status: answer for answer in (*common, *description.answers)}
    operation: dict[str, Any] = {
        "summary": description.summary,
        "responses": {str(status): _response(answers[status], schemas) for status in sorted(answers)},
    }
    parameters = [
        {"name": header.name, "in": "header", "required": True, "description": header.description}
        | {"schema": {"type": "string", "pattern": r"\S", "examples": [header.example]}}  # an empty one is missing
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
    if description.details is not None:
        operation["description"] = description.details
    if description.scope_besides is not None:
        needed = f"The access token must also carry the scope `{description.scope_besides}`."
        operation["description"] = f"{description.details} {needed}" if description.details else needed
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
        content = {"schema": _error_schema(answer.status, schemas)}
        example = example_of(answer.status, answer.error)
        if answer.error is not None and example is not None:
            content["example"] = example.body(EXAMPLE_REQUEST_ID)
        response["content"] = {"application/json": content}
        if answer.status in _HEADERS:
            response["headers"] = _headers(answer.status, example)
    return response


def _headers(status: int, example: ErrorResponse | None) -> dict[str, Any]:
    name, header = _HEADERS[status]
    told = example.headers.get(name, "") if example is not None else ""
    return {name: {**header, "example": int(told) if told.isdigit() else told} if told else header}


def _error_schema(status: int, schemas: dict[str, Any]) -> dict[str, str]:
    """The error model with what an answer with this status may carry, under one name: generators make one type of it.

    Complete in itself, because generators read an `allOf` that narrows a member in different ways.
    """
    name = f"Error{status}"
    if name not in schemas:
        schema = deepcopy(_schema(models.Error))
        members = schema["properties"]
        members["code"] = {**members["code"], "const": status}
        members["error"] = {**members["error"], "enum": [each.value for each in names_of(status)]}
        if status not in _WITH_REASON:
            del members["reason"]
        if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            del members["stack_trace"]
        schema["title"] = name
        schema["description"] = f"An answer with the status {status}, {HTTPStatus(status).phrase}."
        if (example := example_of(status)) is not None:
            schema["examples"] = [example.body(EXAMPLE_REQUEST_ID)]
        schemas[name] = schema
    return {"$ref": f"#/components/schemas/{name}"}


def _reference(model: type, schemas: dict[str, Any]) -> dict[str, str]:
    if model.__name__ not in schemas:
        schema = deepcopy(_schema(model))
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    return {"$ref": f"#/components/schemas/{model.__name__}"}


@cache
def _schema(model: type) -> dict[str, Any]:
    return TypeAdapter(model).json_schema(mode="serialization", ref_template="#/components/schemas/{model}")
