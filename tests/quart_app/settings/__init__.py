"""Settings: what is given, what it must look like, and what is shown of it."""
