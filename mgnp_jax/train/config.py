"""Everything that can be set about training. One default for all models and tasks."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal, get_args

from mgnp_jax.masks.granularities import EMBEDDING, GRANULARITIES
from mgnp_jax.types import MgnpError

GateKind = Literal["mixed", "first_order", "second_order", "straight_through", "soft"]
CacheMode = Literal["auto", "dataset", "batch", "off"]
CachePlace = Literal["device", "host"]
Ablation = Literal["interchange", "zero", "mean"]
Dtype = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Penalties:
    """Price of one open node of each granularity, in the objective's unit.

    A node stays where the objective's faithfulness terms lose more without it than it
    costs. The price is the same for every model: a mean over a granularity's gates, as in
    appendix C, would make each node of a small model dearer than one of a large model.
    """

    attention_blocks: float = 0.01
    """A whole attention block."""
    mlp_blocks: float = 0.145
    """A whole MLP block."""
    attention_heads: float = 0.05
    """A head."""
    attention_neurons: float = 2e-5
    """One output of a head."""
    mlp_hidden: float = 2e-4
    """An MLP neuron after the activation."""
    mlp_output: float = 2e-5
    """One dimension of what an MLP writes."""
    embedding: float = 0.0
    """The embedding; counts only if it is trained."""

    def __post_init__(self) -> None:
        """Refuses negative prices, which would reward keeping everything."""
        for name, value in dataclasses.asdict(self).items():
            if value < 0:
                raise MgnpError(f"penalties.{name} must not be negative, got {value}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscoverConfig:
    """How a circuit is found: loss weights, optimiser, schedules."""

    steps: int = 300
    """Optimiser steps."""
    batch_size: int = 16
    """Prompt pairs a step."""
    learning_rate: float = 0.2
    """Peak of Adam's step size on log-alpha; cosine to a twentieth of it."""
    initial_log_alpha: float = 2.0
    """Where every log-alpha starts; 2.0 is open with probability 0.97."""
    gates: GateKind = "mixed"
    """How gates are drawn: binary (with gradients of masks/hard_concrete.py; `mixed` is first
    order for neurons, second order for the others) or by equation 6."""
    noise_floor: float = 0.5
    """Least scale of the gates' noise, which falls from 1 at a rate that would end at 0.
    Some is kept against fitting gates to the training prompts one by one."""
    kl_weight: float = 2.5
    """Weight of KL(full ‖ circuit), in nats."""
    softened_weight: float = 0.5
    """Weight of KL between answers softened by `temperature`, relative to `kl_weight`; in training
    alone, as validation chooses by the figures that are reported."""
    temperature: float = 3.0
    """Divides the logits of softened answers."""
    score_weight: float = 0.5
    """Weight of |circuit's score − full model's score|, relative to the latter's size."""
    penalty: float = 1.0
    """Scales all prices; with `keep` or `max_kl` only where their scale starts."""
    keep: float | None = None
    """Share of the prunable parameters to keep: the scale of prices follows it, and it is met
    on validation prompts within 10 %."""
    max_kl: float | None = None
    """The same for KL(full ‖ circuit) in nats, which is not exceeded if it can be."""
    penalties: Penalties = Penalties()
    """Price of one open node of each granularity."""
    ablation: Ablation = "interchange"
    """What a pruned node is given: the corrupted run's value, zero, or its mean over the corrupted
    runs of the training prompts."""
    granularities: tuple[str, ...] = GRANULARITIES
    """Granularities that are trained together; gates of the others stay open."""
    warmup: float = 0.4
    """Fraction of the steps over which the penalty grows from nothing to full."""
    train_embedding: bool = False
    """Whether the embedding has a gate that is trained."""
    log_every: int = 10
    """Steps between logged lines."""
    validate_every: int = 20
    """Steps between validations of the binary circuit."""
    validation_prompts: int | None = None
    """Validate on the first so many prompts of the split only; on all by default."""
    cache: CacheMode = "auto"
    """Values of the plain passes: kept for the `dataset`, computed for each `batch`, or `off`:
    layer by layer beside the masked pass, never kept. `auto` keeps what fits in `cache_gib`."""
    cache_gib: float = 6.0
    """Most memory for values of the whole model's plain passes; once closed nodes are left out,
    a smaller copy stands beside them."""
    cache_on: CachePlace = "device"
    """Where a kept dataset lies; from `host` memory each batch is copied over."""
    share_prefix: bool = True
    """Leave tokens before the first one in which a pair differs out of the masked pass; `cache`
    off runs whole prompts anyway."""
    compact: bool = True
    """Leave nodes that are closed for good out of the computation; not with `cache` off, which
    runs the whole model anyway."""
    remat: bool = False
    """Recompute a layer's inner values in the gradient instead of keeping them: less memory."""
    dtype: Dtype = "float32"
    """Of weights and activations in training and its validations; log-alpha, losses and
    optimiser stay float32, and so do the figures on test prompts."""
    devices: int = 1
    """Devices that share a batch; must divide `batch_size`."""
    accumulate: int = 1
    """Parts of a batch that run one after another, their gradients added: less memory, also in
    the plain passes and validation. Times `devices` it must divide `batch_size`."""

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        choices = {
            "gates": GateKind,
            "cache": CacheMode,
            "cache_on": CachePlace,
            "dtype": Dtype,
            "ablation": Ablation,
        }
        for name, kind in choices.items():
            if getattr(self, name) not in get_args(kind):
                raise MgnpError(
                    f"{name} must be one of {get_args(kind)}, got {getattr(self, name)!r}"
                )
        unknown = set(self.granularities) - set(GRANULARITIES)
        if unknown or not self.granularities or not isinstance(self.granularities, tuple):
            raise MgnpError(
                f"granularities must be a tuple of some of {', '.join(GRANULARITIES)}; got "
                f"{', '.join(self.granularities) or 'none'}"
            )
        positive = ("steps", "batch_size", "learning_rate", "log_every", "validate_every")
        positive += ("devices", "accumulate")
        if self.validation_prompts is not None:
            positive += ("validation_prompts",)
        for name in positive:
            if getattr(self, name) <= 0:
                raise MgnpError(f"{name} must be greater than 0, got {getattr(self, name)}")
        for name in ("noise_floor", "warmup"):
            if not 0 <= getattr(self, name) <= 1:
                raise MgnpError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if self.ablation != "interchange" and self.cache == "off":
            raise MgnpError(
                f"ablation must be interchange with cache off, got {self.ablation}: nothing but "
                "the corrupted run goes beside the masked one; leave cache at another mode"
            )
        if self.keep is not None and self.max_kl is not None:
            raise MgnpError("ask for keep or for max_kl, not for both: one price meets one figure")
        if self.penalty == 0 and (self.keep is not None or self.max_kl is not None):
            raise MgnpError(
                "penalty must be greater than 0 with keep or max_kl, got 0: it is where the scale "
                "of prices starts, and what follows multiplies it"
            )
        if self.keep is not None and not 0 < self.keep < 1:
            raise MgnpError(f"keep must lie between 0 and 1, got {self.keep}")
        if self.max_kl is not None and self.max_kl <= 0:
            raise MgnpError(f"max_kl must be greater than 0, got {self.max_kl}")
        if self.batch_size % (self.devices * self.accumulate):
            raise MgnpError(
                "devices times accumulate must divide batch_size, got "
                f"{self.devices} × {self.accumulate} for {self.batch_size} prompts a step"
            )
        if not 1 <= self.temperature < math.inf:
            raise MgnpError(f"temperature must be a number from 1 on, got {self.temperature}")
        for name in ("kl_weight", "softened_weight", "score_weight", "penalty", "cache_gib"):
            if getattr(self, name) < 0:
                raise MgnpError(f"{name} must not be negative, got {getattr(self, name)}")

    @property
    def of_a_step(self) -> DiscoverConfig:
        """What a compiled step depends on; the rest at its default, so as not to compile again."""
        host = ("penalty", "keep", "max_kl", "log_every", "validate_every", "validation_prompts")
        default = DiscoverConfig()
        return dataclasses.replace(self, **{name: getattr(default, name) for name in host})

    @property
    def trained(self) -> tuple[str, ...]:
        """Names of all gates that training moves."""
        return self.granularities + (EMBEDDING,) * self.train_embedding
