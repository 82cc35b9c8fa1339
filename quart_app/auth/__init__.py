"""Access tokens in: who calls, and whether they may. May import `identities` and all below."""
