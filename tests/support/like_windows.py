"""A Python process that lacks what Windows lacks, as far as another platform can be made to."""

WITHOUT = """
import asyncio, os, select, signal, sys

for module in ("uvloop", "fcntl", "grp", "pwd", "resource", "termios"):
    sys.modules[module] = None  # importing it is an ImportError
for name in ("SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
for name in ("O_NOFOLLOW", "fchmod", "fork", "geteuid", "getuid", "killpg", "setsid"):
    delattr(os, name)
for name in ("poll", "PIPE_BUF", "POLLOUT"):
    delattr(select, name)

def no_signal_handlers(*_):
    raise NotImplementedError

asyncio.SelectorEventLoop.add_signal_handler = no_signal_handlers
"""


def like_windows(command: str) -> tuple[str, str]:
    """The arguments of Python for `acs-auth` or `acs-auth-local` with what follows as its own arguments."""
    module = {"acs-auth": "quart_app.cli", "acs-auth-local": "local_azure.cli"}[command]
    return ("-c", f"{WITHOUT}\nfrom {module} import main\nmain()")
