"""Long runs and load against whole processes, each a command of its own."""
