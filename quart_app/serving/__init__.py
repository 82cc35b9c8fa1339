"""Running the application: Hypercorn on uvloop, start and stop. May import `app` and all below."""
