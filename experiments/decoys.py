"""Known ground truth: does a method leave out nodes that provably cannot matter?

    python -m experiments.decoys --task ioi
    python -m experiments.decoys --task ioi --methods all --set edge-pruning.steps=200

Circuits that are found are not searched again: cut it short and call it once more.
"""

from __future__ import annotations

from experiments.command import command
from mgnp_jax.runs.decoy_config import DecoyConfig
from mgnp_jax.runs.decoy_methods import decoys_by_method

if __name__ == "__main__":
    command(DecoyConfig, decoys_by_method, on_device=False)
