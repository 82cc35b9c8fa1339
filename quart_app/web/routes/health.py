"""`/health`: what the platform's probes ask. Open to all; they show only states."""

from quart import Blueprint, Response

from quart_app.auth.guard import public
from quart_app.web.json_answers import json_response
from quart_app.web.readiness import Readiness
from quart_app.web.routes.description import Answer, Details, describes
from quart_app.web.routes.models import Health


def health_routes(readiness: Readiness) -> Blueprint:
    """Liveness, readiness and start-up."""
    blueprint = Blueprint("health", __name__, url_prefix="/health")

    @blueprint.get("/live")
    @describes(
        "Whether the process answers at all",
        Details("It asks no other part. A platform restarts what does not answer."),
        Answer(200, "It does.", Health),
    )
    @public
    async def check_liveness() -> Response:
        body: Health = {"status": "ok"}
        return json_response(body)

    @blueprint.get("/ready")
    @describes(
        "Whether the service can do its work, as last checked in the background",
        Details("A platform sends no requests to a replica that is not ready."),
        Answer(200, "Every part can be reached.", Health),
        Answer(503, "Some part can't be reached.", Health),
    )
    @public
    async def check_readiness() -> Response:
        checks = readiness.states()
        ok = readiness.ready
        body: Health = {"status": "ok" if ok else "unavailable", "checks": checks}
        return json_response(body, 200 if ok else 503)

    @blueprint.get("/startup")
    @describes(
        "Whether the first check is done",
        Details("A platform waits for it before it asks the other two."),
        Answer(200, "The service has started.", Health),
        Answer(503, "It is starting.", Health),
    )
    @public
    async def check_startup() -> Response:
        started = readiness.checked
        body: Health = {"status": "ok" if started else "starting"}
        return json_response(body, 200 if started else 503)

    return blueprint
