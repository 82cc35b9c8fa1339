"""Everything that knows HTTP: routes, error contract, limits, headers. May import `auth` and all below."""
