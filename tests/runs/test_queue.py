"""Many runs in one process: they neither pile up memory nor compile again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.test_commands import ROOT

QUEUE = """
import json, os, sys
from pathlib import Path
import jax
from rich.console import Console
import mgnp_jax as mg
from mgnp_jax.passes.memory import give_back, give_back_early, resident
from mgnp_jax.runs.config import RunConfig
from mgnp_jax.runs.run import run

# As the commands do.
give_back_early()
compiled = 0

def listen(event, duration, **_):
    global compiled
    compiled += event.endswith("backend_compile_duration")

jax.monitoring.register_event_duration_secs_listener(listen)
config = mg.DiscoverConfig(steps=4, validate_every=2, validation_prompts=16, penalty=3.0)
with open(os.devnull, "w") as nowhere:
    for number in range(int(sys.argv[1])):
        out = Path(sys.argv[2]) / str(number)
        asked = RunConfig(task="ioi", out=out, test_prompts=32, control_prompts=16, config=config)
        run(asked, Console(file=nowhere))
        give_back()
        print(json.dumps({"resident": resident(), "compiled": compiled}), flush=True)
"""


@pytest.mark.parametrize("count", [5, pytest.param(30, marks=pytest.mark.full)])
@pytest.mark.slow
def test_runs_after_the_third_take_no_more_memory_and_compile_nothing(
    tmp_path: Path, count: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", QUEUE, str(count), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    after = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(after) == count and after[0]["compiled"] > 0
    assert {each["compiled"] for each in after[2:]} == {after[2]["compiled"]}, after
    assert after[-1]["resident"] <= 1.05 * after[2]["resident"], after
