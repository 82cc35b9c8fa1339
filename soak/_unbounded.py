"""The service without the bound of `quart_app.web.overload`: what `soak overload` would see if there were none."""

from quart_app.cli import main
from quart_app.web.overload import Lateness

if __name__ == "__main__":
    Lateness.admits = lambda self, *_, **__: True  # type: ignore[method-assign]
    main(["serve"])
