"""The paper's protocol for one model: every task, several seeds, its tables.

    python -m experiments.paper --model gpt2-mini

Runs that are finished are not run again: cut it short and call it once more.
"""

from __future__ import annotations

from experiments.command import command
from mgnp_jax.runs.paper import PaperConfig, protocol

if __name__ == "__main__":
    command(PaperConfig, protocol, distributed=True)
