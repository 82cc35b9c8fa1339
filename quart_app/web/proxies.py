"""What trusted proxies say of the client: its address and whether it used TLS."""

from hypercorn.middleware import ProxyFixMiddleware

from quart_app.web.middleware import Application, Middleware


def behind_proxies(trusted_hops: int) -> Middleware:
    """Believe the last `trusted_hops` proxies' `X-Forwarded-…` headers; with 0, nobody's."""

    def around(application: Application) -> Application:
        return ProxyFixMiddleware(application, "legacy", trusted_hops) if trusted_hops else application

    return around
