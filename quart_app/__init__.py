"""The web service: Entra ID access tokens in, ACS access tokens out. May import `storage` and `upstream`."""
