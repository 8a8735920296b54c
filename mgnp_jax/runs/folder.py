"""A run's folder: whose it is, what is in it, and that one process at a time has it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mgnp_jax.checkpoint import checked_path
from mgnp_jax.files import read_object
from mgnp_jax.runs.stopping import Stop, Stopped, listening, stopped_run
from mgnp_jax.types import MgnpError

SETTINGS, RESULTS, LOCK = "config.json", "results.json", ".lock"
OWN = frozenset({LOCK, f"{SETTINGS}.part"})
"""What a run leaves that was ended before it had begun."""
OURS = frozenset({"model", "seed", "config"})
"""Names by which a run's config.json is known."""
MEND = "restore it, or pass another --out"


def results_in(folder: Path) -> dict[str, Any] | None:
    """Results of a run that is done; None if it is not.

    Args:
      folder: of the run.

    Raises:
      MgnpError: if there is something else.
    """
    file = folder / RESULTS
    if not file.exists():
        return None
    results = read_object(file, MEND)
    if not isinstance(training := results.get("training"), dict):
        raise MgnpError(f"{file} does not hold the results of a run; {MEND}")
    # A circuit that was the best so far when its search was stopped is no result.
    return None if training.get("interrupted") else results


def settings_in(folder: Path) -> dict[str, Any] | None:
    """What a run was begun with, as in its config.json; None if none was begun there.

    Args:
      folder: of the run.

    Raises:
      MgnpError: if there is such a file, and it cannot be read.
    """
    file = folder / SETTINGS
    if not file.exists():
        return None
    settings = read_object(file, MEND)
    return settings if settings.keys() >= OURS else None  # Checkpoints have one, too.


def begun(folder: Path) -> bool:
    """Whether a run was begun there, done or not.

    Args:
      folder: of the run.

    Raises:
      MgnpError: if that cannot be told.
    """
    return settings_in(folder) is not None


def undone(folder: Path) -> bool:
    """Whether a run was begun there that is not done.

    Args:
      folder: of the run.

    Raises:
      MgnpError: if that cannot be told.
    """
    return folder.is_dir() and begun(folder) and results_in(folder) is None


def check_free(folder: Path) -> None:
    """Refuses a folder that holds something, before anything is computed.

    Args:
      folder: where a run is to begin.

    Raises:
      MgnpError: if it is a file or not empty, or no circuit can be saved there; how to go on if
        it holds a run that is not done.
    """
    checked_path(folder)
    if not folder.exists():
        return
    if undone(folder):
        raise MgnpError(
            f"{folder} holds a run that is not done; nothing was computed or changed. Add --resume "
            "to go on with it, or begin anew with another --out (or delete that folder)"
        )
    if not folder.is_dir() or {path.name for path in folder.iterdir()} - OWN:
        raise MgnpError(
            f"--out {folder} is not an empty folder; nothing was computed or changed. Pass a new "
            "folder, or leave --out away to get a numbered one under runs/"
        )


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")


def new_default(name: str) -> Path:
    """Makes an empty folder `runs/NAME`, numbered if that is taken.

    Args:
      name: of the run.

    Raises:
      MgnpError: if none can be made.
    """
    slug = _slug(name)
    for number in range(1, 10_000):
        folder = Path("runs") / (slug if number == 1 else f"{slug}-{number}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise _no_folder(error) from None
        return folder
    raise MgnpError(f"runs/ holds 9,999 runs named {slug}; clear some or pass --out")


def last_default(name: str) -> Path:
    """The latest of the folders that `new_default` made.

    Args:
      name: of the run.
    """
    slug = _slug(name)
    numbered = re.compile(rf"{re.escape(slug)}(?:-(\d+))?")
    found = [(m, p) for p in Path("runs").glob(f"{slug}*") if (m := numbered.fullmatch(p.name))]
    return max((int(m[1] or 1), p) for m, p in found)[1] if found else Path("runs") / slug


def _no_folder(error: OSError) -> MgnpError:
    return MgnpError(
        f"no folder for the run can be made at {error.filename} ({error.strerror}); pass --out "
        "FOLDER in a place that can be written to"
    )


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Keeps a folder from other processes; the lock of one that has died is no lock.

    Args:
      folder: made if there is none; if it is still empty at the end, it goes again.

    Raises:
      MgnpError: if another process has it, or no folder can be made.
    """
    try:
        lock = _locked(folder)
    except OSError as error:
        raise _no_folder(error) from None
    try:
        yield
    finally:
        # Before it is given up, so that nobody takes a file that is gone.
        (folder / LOCK).unlink(missing_ok=True)
        os.close(lock)
        with contextlib.suppress(OSError):
            folder.rmdir()


def _locked(folder: Path) -> int:
    path = folder / LOCK
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        except FileNotFoundError:
            # Whoever had the folder may have removed it, empty, just now.
            if folder.exists():
                raise
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(lock, 20, 0).decode() or "unknown"
            os.close(lock)
            raise MgnpError(
                f"{folder} is in use by another run (process {pid}); nothing was changed. Wait for "
                "it, or take another folder (--out)"
            ) from None
        except OSError as error:
            os.close(lock)
            raise MgnpError(
                f"{path} cannot be locked ({error.strerror}), so that nothing would keep another "
                "run out of that folder: its file system has no locks, or they are turned off "
                "where it is mounted; take a folder on another one, such as a local disk (--out)"
            ) from None
        if _is_there(path, lock):
            os.truncate(lock, 0)
            os.pwrite(lock, str(os.getpid()).encode(), 0)
            os.fsync(lock)  # Another machine may wait for it, and NFS writes when it must.
            return lock
        os.close(lock)


def _is_there(path: Path, file: int) -> bool:
    """Whether it is still that file: whoever had it may have removed it just now."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextlib.contextmanager
def at_work(folder: Path, again: Sequence[str] = (), stop: Stop | None = None) -> Iterator[Stop]:
    """Holds a folder, takes signals, and says what went wrong there in a line.

    Args:
      folder: of the run.
      again: flags that go on with it, beside those that it was begun with.
      stop: that takes signals; a new one by default.

    Yields:
      What signals ask for.

    Raises:
      MgnpError: if the folder is another process's, or cannot be written to.
      Stopped: if a signal ended the run.
    """
    with held(folder), listening(stop) as stop:
        try:
            yield stop
        except (Stopped, BrokenPipeError):
            raise
        except KeyboardInterrupt:
            raise stopped_run(stop, folder, again if begun(folder) else ()) from None
        except OSError as error:
            where = error.filename or folder
            raise MgnpError(
                f"{where} cannot be read or written ({error.strerror or error}); what was put "
                f"aside before in {folder} is whole: mend that and go on"
            ) from error
