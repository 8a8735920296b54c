"""Methods side by side on one bench: at equal edges, at equal parameters, and over all sizes.

    python -m experiments.compare --task ioi --methods node-pruning,eap-ig,nap-ig,random --seeds 1
    python -m experiments.compare --task ioi --methods random --controls

Runs and measurements that are done are not done again: cut it short and call it once more.
"""

from __future__ import annotations

from experiments.command import command
from mgnp_jax.runs.compare import compare
from mgnp_jax.runs.compare_config import CompareConfig

if __name__ == "__main__":
    command(CompareConfig, compare, on_device=False, distributed=True)
