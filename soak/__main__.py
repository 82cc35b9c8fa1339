"""`python -m soak NAME [OPTIONS]`: run the proof of that name."""

import importlib
import pkgutil
import sys
from collections.abc import Sequence

import soak


def proofs() -> dict[str, str]:
    """What can be run: the first line of each module's docstring, by the module's name."""
    found = {}
    for module in pkgutil.iter_modules(soak.__path__):
        if module.name.startswith("_"):
            continue
        imported = importlib.import_module(f"soak.{module.name}")
        if hasattr(imported, "main"):
            found[module.name] = (imported.__doc__ or "").partition("\n")[0]
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the proof that the first argument names, with the others; its exit status, or 2 for an unknown name."""
    known = proofs()
    if not arguments or arguments[0] not in known:
        print("Name a proof; --help after it lists its options:", file=sys.stderr)
        for name, purpose in known.items():
            print(f"  {name:<10} {purpose}", file=sys.stderr)
        return 2
    status: int = importlib.import_module(f"soak.{arguments[0]}").main(arguments[1:])
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
