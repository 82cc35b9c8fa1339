"""What operators see: access lines, logs, metrics, traces. May import `auth` and all below; no web framework."""
