"""Memory, multiply-adds and time of a model's search, from its config.json alone; nothing is run.

python -m experiments.plan --model-config config.json --device-gib 24 --tflops 50
"""

from __future__ import annotations

from experiments.command import command
from mgnp_jax.runs.plan import PlanConfig, plan

if __name__ == "__main__":
    command(PlanConfig, plan)
