"""What a user sees while a circuit is found."""

from __future__ import annotations

from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

SHORT = {
    "attention_blocks": "attn",
    "mlp_blocks": "mlp",
    "attention_heads": "heads",
    "attention_neurons": "neurons",
    "mlp_hidden": "hidden",
    "mlp_output": "output",
    "embedding": "emb",
}
"""Granularities in a line of the terminal."""


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

    def __init__(self, steps: int, console: Console) -> None:
        """Prepares the bar.

        Args:
          steps: how many there will be.
          console: where to draw.
        """
        self._progress = Progress(
            MofNCompleteColumn(),
            BarColumn(bar_width=20),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.fields[terms]}"),
            console=console,
            disable=not console.is_terminal,
            transient=True,
        )
        self._console = console
        self._task = self._progress.add_task("", total=steps, terms="compiling")

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
          record: a logged step, a validation or a compaction.
        """
        if "validation" in record:
            v = record["validation"]
            when = "settled on" if "dial" in v else f"step {v['step']:>5}"
            # Rounding may leave a KL of nothing a little below it.
            self._console.print(
                f"{when}  KL {max(v['kl'], 0.0):.3f}  score {v['score']:.3f} (model "
                f"{v['base_score']:.3f})  accuracy {v['accuracy']:.3f}  "
                f"kept {kept_text(v['kept'])}",
                highlight=False,
                soft_wrap=True,
            )
            return
        if "cost" in record:
            self._console.print(
                f"step {record['step']:>5}  closed nodes left out: a token costs "
                f"{100 * record['cost']:.0f}% of the whole model",
                highlight=False,
            )
            return
        softened = f", softened {record['softened_kl']:.2f}" if "softened_kl" in record else ""
        terms = (
            f"loss {record['loss']:.2f} = KL {record['kl']:.3f}{softened}, gap "
            f"{record['score_gap']:.2f}, L0 {record['penalty']:.2f} · expected "
            f"{kept_text(record['kept'])}"
        )
        self._progress.update(self._task, completed=record["step"], terms=terms)
