"""What MSAL is given in place of its own parts: an HTTP client, and caches that remember nothing.

No redirects, which would carry the credential along, no retries, a time limit, no cookies; 429, 5xx and lost
connections are typed errors before MSAL sees them.
"""

from http.cookiejar import DefaultCookiePolicy
from typing import Any

import msal
import requests

from quart_app.auth.on_behalf_of.errors import OnBehalfOfThrottled, OnBehalfOfUnavailable
from upstream import certificate_authorities
from upstream.retry_after import retry_after


class HttpClient:
    """What MSAL sends its requests with."""

    def __init__(self, timeout: float, connections: int, *, keep_alive: bool = True) -> None:
        self._timeout = timeout
        self._session = requests.Session()
        self._session.verify = certificate_authorities.for_requests()
        if not keep_alive:
            self._session.headers["Connection"] = "close"
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._adapter = requests.adapters.HTTPAdapter(pool_maxsize=connections, max_retries=0)
        self._session.mount("https://", self._adapter)
        self._session.mount("http://", self._adapter)  # a managed identity's endpoint is local and plain

    def get(self, url: str, **parameters: Any) -> requests.Response:
        return self._request("GET", url, **parameters)

    def post(self, url: str, **parameters: Any) -> requests.Response:
        return self._request("POST", url, **parameters)

    def close(self) -> None:
        # requests leaves closing to the garbage collector, and a kept exception can hold that up.
        for manager in (self._adapter.poolmanager, *self._adapter.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  # it can't be iterated itself
                manager.pools[key].close()
        self._session.close()

    def _request(
        self, method: str, url: str, params: Any = None, data: Any = None, headers: Any = None, **_: Any
    ) -> requests.Response:
        try:
            response = self._session.request(
                method,
                url,
                params=params,
                data=data,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except OSError as error:  # requests' own errors are such, and so is that a CA bundle went away
            raise OnBehalfOfUnavailable from error
        if response.status_code == 429:
            raise OnBehalfOfThrottled(retry_after(response.headers))
        if response.status_code == 408 or response.status_code >= 500:
            raise OnBehalfOfUnavailable(retry_after(response.headers))
        return response


class RemembersNothing(dict[str, Any]):
    """MSAL's `http_cache`, whose keys don't tell users apart."""

    def __setitem__(self, key: str, value: Any) -> None:
        pass


class KeepsNoTokens(msal.TokenCache):  # type: ignore[misc]
    """MSAL's `token_cache`, which on-behalf-of fills and never reads."""

    def add(self, event: Any, now: Any = None) -> None:
        pass
