"""Commands: parse a config dataclass, call the package, save."""

import sys

try:
    import jax  # noqa: F401
except ValueError as error:
    # It reads its variables when it is imported, before any command is.
    print(f"error: JAX does not start: {error}", file=sys.stderr)
    raise SystemExit(2) from None
