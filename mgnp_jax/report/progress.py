"""What a user sees while a circuit is found."""

from __future__ import annotations

from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mgnp_jax.masks.granularities import EMBEDDING, TABLE
from mgnp_jax.report.text import printable

SHORT = {name: kind.short for name, kind in TABLE.items()} | {EMBEDDING: "emb"}
"""Granularities in a line of the terminal."""

TERMS = {"kl": "KL", "softened_kl": "softened", "score_gap": "gap", "penalty": "L0"}
"""Terms of a loss in a line of the terminal; others by their own names."""


def kept_text(kept: dict[str, float]) -> str:
    """Shares as one line, in percent.

    Args:
      kept: fractions by granularity.
    """
    return " ".join(f"{SHORT[name]} {100 * kept[name]:.0f}%" for name in SHORT if name in kept)


class TrainingProgress:
    """A bar with the loss terms, and a line for each validated binary circuit.

    Where the output is no terminal, only the lines are printed.
    """

    def __init__(self, steps: int | None, console: Console) -> None:
        """Prepares the bar.

        Args:
          steps: how many there will be; None if that is not known.
          console: where to draw.
        """
        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[terms]}", markup=False),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._console = console
        self._task = self._progress.add_task("", total=steps, terms="preparing and compiling")

    def __enter__(self) -> Self:
        """Starts drawing."""
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stops drawing."""
        self._progress.stop()

    def __call__(self, record: dict[str, Any]) -> None:
        """Shows a record of `discover`.

        Args:
          record: a logged step, a validation, a compaction, prompts that were run before the
            first step, or what else a method says.
        """
        if "validation" in record:
            self._print(validation_text(record["validation"]))
        elif "text" in record:
            when = f"step {record['step']:>5}  " if "step" in record else ""
            self._print(f"{when}{record['text']}")
        elif "prepared" in record:
            terms = f"running prompts through the model: {record['prepared']} of {record['of']}"
            self._progress.update(self._task, terms=terms)
        elif "step" in record:
            self._progress.update(self._task, completed=record["step"], terms=loss_text(record))
            if "of" in record:
                self._progress.update(self._task, total=record["of"])

    def _print(self, text: str) -> None:
        self._console.print(printable(text), highlight=False, markup=False, soft_wrap=True)


def validation_text(validation: dict[str, Any]) -> str:
    """A validated binary circuit as one line.

    Args:
      validation: its record.
    """
    v = validation
    parts = ["settled on" if "target" in v else f"step {v.get('step', 0):>5}"]
    if "kl" in v:
        parts.append(f"KL {v['kl']:z.3f}")
    if "score" in v:
        base = f" (model {v['base_score']:.3f})" if "base_score" in v else ""
        parts.append(f"score {v['score']:.3f}{base}")
    if "accuracy" in v:
        parts.append(f"accuracy {v['accuracy']:.3f}")
    # Of edges none are told.
    if v.get("kept"):
        parts.append(f"kept {kept_text(v['kept'])}")
    return "  ".join(parts)


def loss_text(record: dict[str, Any]) -> str:
    """A step's loss and its terms as one line.

    Args:
      record: of the step.
    """
    terms = ", ".join(
        f"{TERMS.get(name, name)} {value:z.3f}"
        for name, value in record.items()
        if isinstance(value, float) and name not in ("step", "loss")
    )
    text = f"loss {record['loss']:.2f} (of {terms})" if "loss" in record else terms
    kept = record.get("kept")
    return f"{text} · expected {kept_text(kept)}" if kept else text
