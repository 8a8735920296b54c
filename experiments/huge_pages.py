"""Large arrays in pages of 2 MiB: Linux has them ready in a fraction of the time of small ones.

Every step frees large arrays and asks for others. What that gains is in `LOG.md`.
"""

import contextlib
import os
import sys
from pathlib import Path

MODE = Path("/sys/kernel/mm/transparent_hugepage/enabled")
"""Where Linux says who is given huge pages; in brackets what holds."""

SETTING = "glibc.malloc.hugetlb"
"""What asks for them, from glibc 2.35 on."""


def ask_for_huge_pages() -> None:
    """Begins the program again, asking for huge pages, where they are given to who asks.

    glibc reads its settings when a process begins, so that is the only time to ask. Returns where
    there is nothing to gain: elsewhere than on Linux, or if the environment says already.
    """
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    if SETTING in tunables or not sys.executable or not _are_given_on_request():
        return
    asked = ":".join(filter(None, (tunables, f"{SETTING}=1")))
    with contextlib.suppress(OSError):
        environment = {**os.environ, "GLIBC_TUNABLES": asked}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _are_given_on_request() -> bool:
    """Whether they are, and glibc can ask for them."""
    try:
        name, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").split()
        major, minor = map(int, version.split(".")[:2])
        return name == "glibc" and (major, minor) >= (2, 35) and "[madvise]" in MODE.read_text()
    except (AttributeError, OSError, ValueError):
        return False
