"""Where mappings live: one interface, several stores. May import `upstream`."""
