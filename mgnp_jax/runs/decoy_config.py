"""What a comparison with decoys is asked for: of one method, or of several."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro

from mgnp_jax.methods import DEFAULT, METHODS
from mgnp_jax.runs.compare_config import check_ablations
from mgnp_jax.runs.config import check_least, checked_method, method_named, named_after
from mgnp_jax.runs.method_settings import configured, other_circuit, settings_of
from mgnp_jax.types import MgnpError

ALL = "all"
"""What `--methods` says for every method."""

REFERENCE = DEFAULT.name
"""The method whose circuits say how large those of several methods are."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoyConfig:
    """Finds a circuit with and without decoys and compares the two."""

    task: str = "ioi"
    """Built-in task."""
    decoy_heads: int = 4
    """Decoy heads in each layer of gpt2-mini."""
    decoy_hidden: int = 256
    """Decoy MLP neurons in each layer."""
    decoy_layers: int = 2
    """Decoy layers: after the first layers, one each."""
    decoy_weight: float = 0.1
    """Size of a decoy's output weights over that of the other nodes'."""
    prefix: str | None = None
    """As for experiments.run."""
    seed: int = 0
    """Of prompts, method and decoys."""
    test_prompts: int | None = 2000
    """Measure on the first so many test prompts only."""
    out: Path | None = None
    """Folder for the two circuits and decoys.json, by default one under runs/; a circuit that is
    there is not searched again, and a search that was stopped is gone on with."""
    json: Path | None = None
    """Where to write the figures, too."""
    methods: str | None = None
    """Several methods in one table: their names with commas between, or all. Node pruning comes
    first, named or not; others keep as many nodes or edges, where they can be asked for that."""
    settings: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(name="set")] = ()
    """METHOD.FIELD=VALUE, such as edge-pruning.steps=200: a setting of one of --methods; may be
    given again. Fields are those of experiments.run --method METHOD."""
    method: str = ""
    """How circuits are found, by name; decides which further flags there are."""
    config: Any = DEFAULT()
    """The method's own. A circuit to be like, or to work within, is the folder of another
    comparison of this kind, which has one for either model."""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        check_least(self, seed=0, test_prompts=1)
        if min(self.decoy_heads, self.decoy_hidden, self.decoy_layers, self.decoy_weight) < 0:
            raise MgnpError(
                "--decoy-heads, --decoy-hidden, --decoy-layers and --decoy-weight must not be "
                "negative"
            )
        object.__setattr__(self, "method", checked_method(self.method, self.config))
        if self.methods is None and self.settings:
            raise MgnpError("--set goes with --methods; settings of one --method are flags")
        if self.methods is not None:
            self._check_methods()

    def _check_methods(self) -> None:
        """Refuses methods that there are not, and settings that they cannot have."""
        if self.method != REFERENCE or self.config != DEFAULT():
            raise MgnpError(
                "--methods goes without --method and its flags: of several methods each is set by "
                f"--set METHOD.FIELD=VALUE, such as --set {REFERENCE}.steps=100"
            )
        for name in self.names:
            method_named(name)
        check_ablations([self.of(name, Path()) for name in self.names])

    @property
    def names(self) -> tuple[str, ...]:
        """The methods, the reference first."""
        asked = METHODS if self.methods == ALL else str(self.methods).split(",")
        return tuple(dict.fromkeys((REFERENCE, *(name.strip() for name in asked))))

    @property
    def folder(self) -> Path:
        """Where it is, if not said."""
        after = named_after(self.method) if self.methods is None else "-methods"
        return self.out or Path("runs") / f"decoys-{self.task}{after}-seed{self.seed}"

    def of(self, method: str, out: Path, like: Path | None = None) -> DecoyConfig:
        """The comparison of one of the methods.

        Args:
          method: its name.
          out: folder for it.
          like: of the reference's comparison, for a method that can be asked for as many nodes or
            edges, or that works within another circuit.
        """
        settings = settings_of(self.settings).get(method, {})
        config = configured(method, settings, **other_circuit(method, like))
        now = {field.name: getattr(self, field.name) for field in dataclasses.fields(DecoyConfig)}
        own = {"method": method, "config": config, "out": out, "json": None}
        return DecoyConfig(**(now | {"methods": None, "settings": ()} | own))
