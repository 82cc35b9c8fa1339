"""What operators do: diagnose, migrate, reconcile. May import `stores` and all below; knows no web framework."""
