"""Evidence is gathered in parts that do not divide prompts and nodes, as where memory is short."""

from __future__ import annotations

import pytest

from mgnp_jax.evidence import explain as gathering
from mgnp_jax.evidence.chunks import Load

LITTLE = Load(bytes=2**30, prompts=4, forward=4, nodes=3)


@pytest.fixture(autouse=True)
def little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fills up the last prompts and the last nodes of a layer."""
    monkeypatch.setattr(gathering, "load_of", lambda *of: LITTLE)
