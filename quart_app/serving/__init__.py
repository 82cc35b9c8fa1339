"""Running the application: Hypercorn and its event loop, start and stop. May import `app` and all below."""
