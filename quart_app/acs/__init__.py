"""The ACS upstream: its interface, its client and how it is opened. May import `settings`, `clouds` and `upstream`."""
