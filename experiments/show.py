"""Shows a saved circuit, or a folder of runs, as a page that a browser opens from the disk.

python -m experiments.show --circuit runs/ioi-gpt2-mini-seed0
python -m experiments.show --circuit runs/ioi --compare runs/ioi-eap runs/ioi-random
python -m experiments.show --circuit theirs.json --model gpt2
python -m experiments.show --runs runs
"""

from __future__ import annotations

from experiments.command import command
from mgnp_jax.runs.show import ShowConfig, show

if __name__ == "__main__":
    command(ShowConfig, show)
