"""The OpenAPI 3.1 document, made from the routes themselves and the descriptions that they carry."""

from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

from pydantic import TypeAdapter
from quart import Quart

from quart_app.auth.doors import SignIn
from quart_app.auth.guard import ACCESS
from quart_app.web.error_names import names_of
from quart_app.web.routes import models
from quart_app.web.routes.description import Answer, RouteDescription, description_of

_COMMON = (
    Answer(401, "No valid access token for this API."),
    Answer(403, "The access token lacks the scope of this API."),
    Answer(413, "The request body is larger than 16 KiB. No route needs one; a smaller one is ignored."),
    Answer(429, "The caller sends too many requests; repeat after the time in Retry-After."),
    Answer(503, "Busy or unreachable at the moment; repeat after the time in Retry-After."),
)
_TAGS = {
    "user": "The caller's ACS identity: one for each user, made once and kept.",
    "token": "ACS access tokens for the caller.",
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


def openapi_document(app: Quart) -> dict[str, Any]:
    """Describe every route of `app` that carries a description, with every answer it can give.

    How one gets in is added by `with_sign_in`.
    """
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
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
        "tags": [{"name": name, "description": text} for name, text in _TAGS.items()],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def with_sign_in(document: dict[str, Any], sign_ins: Sequence[SignIn], *, by_token: bool = True) -> dict[str, Any]:
    """The document with its security schemes: each of `sign_ins`, any of which is enough, and the bearer scheme.

    Without `by_token` the bearer scheme is left out where there is a sign-in.
    """
    schemes: dict[str, Any] = {}
    security: list[dict[str, list[str]]] = []
    for each in sign_ins:
        flow = {
            "authorizationUrl": each.endpoints.authorization,
            "tokenUrl": each.endpoints.token,
            "scopes": dict.fromkeys(each.scopes, "Call this API as the signed-in user"),
        }
        schemes[each.issuer] = {"type": "oauth2", "flows": {"authorizationCode": flow}}
        security.append({each.issuer: list(each.scopes)})
    if by_token or not sign_ins:
        schemes["token"] = {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}
        security.append({"token": []})
    components = {**document["components"], "securitySchemes": schemes}
    return {**document, "components": components, "security": security}


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
