"""Known ground truth: does a method leave out nodes that provably cannot matter?

python -m experiments.decoys --task ioi

Circuits that are found are not searched again: cut it short and call it once more.
"""

from __future__ import annotations

from experiments.command import command
from mgnp_jax.runs.decoys import DecoyConfig, decoys

if __name__ == "__main__":
    command(DecoyConfig, decoys)
