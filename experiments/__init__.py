"""Commands: parse a config dataclass, call the package, save."""

import signal
import sys

from experiments.huge_pages import ask_for_huge_pages

# `python -m experiments.X`: Ctrl-C just ends it until `command` puts this back. Within an import it
# would print that import's traceback, or be swallowed by it.
if sys.argv[:1] == ["-m"] and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
if sys.argv[:1] == ["-m"]:
    ask_for_huge_pages()

try:
    import jax  # noqa: F401
except ValueError as error:
    # It reads its variables when it is imported, before any command is.
    print(f"error: JAX does not start: {error}", file=sys.stderr)
    raise SystemExit(2) from None
