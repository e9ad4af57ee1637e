"""Settings of training runs: frozen, documented dataclasses; the command line and YAML are made of them."""

import math
from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Self

import yaml

from molspectra.compiled import Kernels
from molspectra.errors import SettingError
from molspectra.models.config import COMPONENTS, ModelConfig
from molspectra.objectives.config import (
    AlignmentConfig,
    DenoisingConfig,
    ReconstructionConfig,
    SupervisedConfig,
)
from molspectra.spectra.modality import modality
from molspectra.training.devices import is_device
from molspectra.training.schedule import ScheduleConfig
from molspectra.training.settings import flat, from_dict, put, to_dict

if TYPE_CHECKING:
    from molspectra.data.store.store import Broadening

RESERVED = ("forces", "denoising", "slide", "loss")
"""Names that the losses of a fine-tuning run have besides its target."""


MAX_WORKERS = 256
"""Largest number of processes that prepare batches."""

MAX_FOLDS = 100
"""More folds than that are a mistake."""

TRIALS = 20
"""Number of trials of a search for settings unless told otherwise."""

SPACE = ("optimizer.learning_rate=1e-4:3e-3:log", "optimizer.encoder_factor=0.1:1:log")
"""What it tries unless told otherwise; see `molspectra.training.tune`."""

AS_IS = (1.0, 1.0)
"""A range of factors without effect."""


@dataclass(frozen=True)
class DataConfig:
    """Which molecules a run sees."""

    store: str = "bundled"
    """Path of a store, or "bundled" or "bundled-ethanol" for the datasets that come with the package."""
    split: Literal["identity", "scaffold", "column", "reference"] = "identity"
    """How rows are shared out: "identity" keeps all rows of a molecule in one part, the same in every dataset
    (see `fractions`); "scaffold" likewise all molecules of one Bemis-Murcko scaffold; "column" takes the
    parts from a column of the store (see `split_column`); "reference" is the published permutation of row
    numbers (see `sizes`), also for the frames of a trajectory, which are all one molecule."""
    split_seed: int = 0
    """Seed of the split (published: 1); keep it in all stages, so that an identity split keeps test molecules
    out of pre-training."""
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
    """Shares of training, validation and test molecules in an identity or scaffold split."""
    split_column: str = ""
    """Column of the store that tells the parts of a column split; `prepare` makes it of a column of words
    train, val and test with --option split=NAME."""
    folds: int = 0
    """Cut an identity or scaffold split into so many equal folds, each of which is the test part once; of
    `fractions`, only the share of validation counts then. 0 for none."""
    fold: int | None = None
    """The fold that is the test part, from 0; null fine-tunes and tests with each in turn."""
    sizes: tuple[int, ...] = ()
    """Rows for training and validation in a reference split, and for test where it is not all others
    (published: 110000,10000 for QM9 and 950,50 for MD17)."""
    allow_leak: Literal["none", "structures", "all"] = "none"
    """Fine-tune although test molecules were seen in pre-training: "structures" accepts those that were seen
    without spectra or labels, "all" also those with."""
    train_rows: int = 0
    """Use only this many training rows (the same for every run with this split seed); 0 for all."""
    workers: int = 0
    """Processes that prepare batches ahead of time; results do not depend on it."""

    def __post_init__(self) -> None:
        """Check what can be checked without opening the store."""
        if self.train_rows < 0 or self.workers < 0:
            raise SettingError("data: train_rows and workers must not be negative")
        if self.workers > MAX_WORKERS:
            raise SettingError(f"data: at most {MAX_WORKERS} workers, not {self.workers}")
        if self.split in ("identity", "scaffold") and self.sizes:
            kind = "an identity" if self.split == "identity" else "a scaffold"
            raise SettingError(f"data.sizes: {kind} split goes by data.fractions; set data.split: reference")
        if self.folds or self.fold is not None:
            self._check_folds()
        if self.split == "column" and not self.split_column:
            raise SettingError(
                "data.split_column: a column split needs the name of the column, such as --data.split_column "
                "set; prepare --option split=set makes it of words train, val and test"
            )
        if self.split_column and self.split != "column":
            raise SettingError(
                f"data.split_column: {self.split_column!r} is not used by the {self.split} split; set "
                "data.split: column"
            )
        if self.split == "reference" and not (
            len(self.sizes) in (2, 3) and min(self.sizes) >= 0 and self.split_seed >= 0
        ):
            raise SettingError(
                "data.sizes: a reference split needs rows for training and validation (and test, else all "
                f"others), such as 950,50, and a split_seed from 0; not "
                f"{list(self.sizes[:4])}, {self.split_seed}"
            )

    def _check_folds(self) -> None:
        if self.split not in ("identity", "scaffold"):
            raise SettingError(f"data.folds: for identity and scaffold splits, not for a {self.split} split")
        if not self.folds:
            raise SettingError(f"data.fold: {self.fold} of how many? set data.folds, too")
        if not 2 <= self.folds <= MAX_FOLDS:
            raise SettingError(
                f"data.folds: 2 to {MAX_FOLDS} folds are possible (0 for none), not {self.folds}"
            )
        if not 0 <= (self.fold or 0) < self.folds:
            raise SettingError(
                f"data.fold: of {self.folds} data.folds it is 0 to {self.folds - 1}, not {self.fold}"
            )
        if self.fractions[1] + 1 / self.folds >= 1:
            raise SettingError(
                f"data.folds: with {self.folds} folds and a share of {self.fractions[1]} for validation "
                "none is left for training"
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW and what happens around its step."""

    learning_rate: float = 4e-4
    """Peak learning rate."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip: float = 0.0
    """Largest gradient norm; 0 does not clip."""
    ema: float = 0.0
    """Decay of the moving average of the weights, which validation and checkpoints use; 0 for none."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Learning rate over the steps."""
    encoder_factor: float = 1.0
    """Factor on the learning rate of the 3D encoder; below 1, fine-tuning keeps more of the pre-training."""
    layer_decay: float = 1.0
    """Further factor per encoder layer below the last one (layer-wise decay)."""
    head_steps: int = 0
    """First steps in which the 3D encoder is not changed, so that a new head adapts to it."""
    freeze: int | Literal["encoder"] = 0
    """What of the 3D encoder is never changed: its embedding and its first layers, so many, or all of it
    ("encoder"). What is frozen takes no gradients and no memory for them."""

    def __post_init__(self) -> None:
        """Refuse values that cannot train."""
        if self.learning_rate <= 0 or self.weight_decay < 0 or self.clip < 0 or not 0 <= self.ema < 1:
            raise SettingError(
                "optimizer: learning_rate > 0, weight_decay >= 0, clip >= 0 and 0 <= ema < 1 are needed"
            )
        if not (0 <= self.encoder_factor < math.inf and 0 < self.layer_decay <= 1 and self.head_steps >= 0):
            raise SettingError(
                "optimizer: encoder_factor >= 0, 0 < layer_decay <= 1 and head_steps >= 0 are needed"
            )
        if isinstance(self.freeze, int) and self.freeze < 0:
            raise SettingError(f"optimizer.freeze: 0 layers or more, or encoder, not {self.freeze}")
        if self.freeze == "encoder" and (self.encoder_factor, self.layer_decay, self.head_steps) != (1, 1, 0):
            raise SettingError(
                "optimizer.freeze: encoder leaves nothing to do for encoder_factor, layer_decay, head_steps"
            )


MOST_STEPS = 1_000_000_000
"""More steps than any run has time for are a mistake."""

LARGEST_BATCH = 100_000
"""More molecules than that for a step are a mistake."""


@dataclass(frozen=True)
class LoopConfig:
    """The training loop."""

    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 64
    """Molecules per optimizer step, over all devices and micro-batches."""
    accumulation: int = 1
    """Micro-batches per optimizer step. Losses equal those of one large batch (the alignment takes a second
    pass without gradients for that), but for the spectrum encoder's batch norms, which see one at a time."""
    edge_budget: int = 0
    """Most directed edges per micro-batch, counted as N² for a molecule of N atoms (all that any cutoff
    leaves, self-edges included); 0 divides by molecules alone. It bounds the memory where small and large
    molecules are mixed: as many micro-batches as it takes, but no fewer than `accumulation`, with about
    equally many edges, for every device too. A molecule with more edges has a micro-batch of its own. The
    batch of a step stays the same, and so do its losses (see `accumulation`)."""
    seed: int = 0
    """Seed of initial weights, batch order, noise and masks."""
    validate_every: int = 250
    """Steps between validations (and at the end); 0 only at the end."""
    save_every: int = 250
    """Steps between checkpoints (and at the end); 0 only at the end."""
    keep: int = 2
    """Newest checkpoints that are kept beside the best one; with 2, one that is damaged costs few steps."""
    patience: int = 0
    """Validations in a row without a lower loss after which the run ends early; 0 never does."""
    log_every: int = 10
    """Steps between rows of metrics.csv."""
    accelerator: str = "auto"
    """Device: cpu, cuda, a GPU by its number (cuda:1), mps, or auto, a CUDA GPU if there is one and else the
    CPU. Apple's mps, where nothing was tried, is used only if it is named. A run that is resumed with auto
    keeps the device that its settings name. `record.json` tells the device that was used."""
    devices: int = 1
    """Number of devices on each machine; on the CPU, of processes."""
    nodes: int = 1
    """Number of machines. Several are started by torchrun or SLURM's srun, with a process for each device."""
    precision: Literal["32-true", "64-true", "bf16-mixed"] = "32-true"
    """Arithmetic."""
    kernels: Kernels = "auto"
    """"compiled" kernels for the CPU (extra `fast`), "plain" torch, or "auto": what the environment variable
    MOLSPECTRA_KERNELS says, else compiled where they apply. Results are equal up to rounding."""
    compile: bool = False
    """Let `torch.compile` make the passes of both encoders, in the first steps; on a GPU with Triton, on the
    CPU with a C++ compiler and in place of the kernels. One device, no forces. A resumed run then equals an
    unbroken one up to rounding only."""
    tensorboard: bool = False
    """Also write TensorBoard event files into the run directory (extra `trackers`)."""
    wandb: bool = False
    """Also log to Weights & Biases (extra `trackers`); WANDB_MODE=offline keeps it on this machine."""
    mlflow: bool = False
    """Also log to MLflow (extra `trackers`): to MLFLOW_TRACKING_URI, else a database in the run directory."""

    def __post_init__(self) -> None:
        """Refuse counts that make no run."""
        for name in ("steps", "batch_size", "accumulation", "log_every", "devices", "nodes", "keep"):
            if getattr(self, name) < 1:
                raise SettingError(f"loop: {name} must be at least 1, not {getattr(self, name)}")
        for name, most in (("steps", MOST_STEPS), ("batch_size", LARGEST_BATCH)):
            if getattr(self, name) > most:
                raise SettingError(f"loop: {name} must be at most {most:,}, not {getattr(self, name)}")
        if min(self.validate_every, self.save_every, self.patience) < 0:
            raise SettingError("loop: validate_every, save_every and patience must not be negative")
        if self.patience and not self.validate_every:
            raise SettingError("loop.patience: counts validations; set loop.validate_every")
        if not is_device(self.accelerator):
            raise SettingError(
                "loop: accelerator must be auto, cpu, cuda, a GPU by its number (cuda:1) or mps, not "
                f"{self.accelerator!r}"
            )
        if ":" in self.accelerator and self.processes > 1:
            raise SettingError(
                f"loop: {self.accelerator} is one device, not {self.processes}; set loop.accelerator: cuda"
            )
        if self.compile and self.processes > 1:
            raise SettingError(f"loop.compile works on one device, not {self.processes}; leave it off")
        if self.compile and self.kernels == "compiled":
            raise SettingError("loop.compile takes the place of compiled kernels; set loop.kernels: auto")
        parts = self.accumulation * self.processes
        if self.batch_size < parts:
            raise SettingError(f"loop: a batch of {self.batch_size} cannot be cut into {parts} parts")
        if self.edge_budget < 0:
            raise SettingError(f"loop.edge_budget must be 0 (none) or more edges, not {self.edge_budget}")
        if self.edge_budget and self.batch_size % self.processes:
            raise SettingError(
                f"loop.edge_budget: on {self.processes} devices loop.batch_size must be a multiple of "
                f"{self.processes}, not {self.batch_size}"
            )

    @property
    def processes(self) -> int:
        """Number of processes, one for each device of each machine."""
        return self.nodes * self.devices


@dataclass(frozen=True)
class SpectraConfig:
    """Augmentation of the spectra of training batches; those of validation and test are unchanged.

    Positions and widths are in default line widths of the modality (12 cm⁻¹, 0.3 eV), so that one setting
    fits all axes; heights are fractions of a spectrum's maximum. Everything is off by default.
    """

    dropout: float = 0.0
    """Probability that a spectrum of a molecule is withheld in an epoch (modality dropout). A molecule keeps
    at least one of its spectra."""
    shift: float = 0.0
    """Largest shift of all positions to either side, in line widths (0.83: 10 cm⁻¹)."""
    scale: tuple[float, float] = AS_IS
    """Range of a factor on all positions (0.95,1.0 for uncorrected frequencies)."""
    width: tuple[float, float] = AS_IS
    """Range of the full width at half maximum, in line widths (0.33,3.33: 4 to 40 cm⁻¹). Lines are broadened
    with the smallest and folded to the one drawn; samples can only become wider (1 or more)."""
    gain: tuple[float, float] = AS_IS
    """Range of a factor on all intensities, drawn on a logarithmic scale."""
    drift: float = 0.0
    """Largest height of a slowly varying baseline."""
    noise: float = 0.0
    """Largest standard deviation of white noise."""
    crop: float = 0.0
    """Largest fraction of the axis that is cut off at either end."""
    share: float = 1.0
    """Probability that a spectrum is distorted in an epoch; the others are left as they are."""

    def __post_init__(self) -> None:
        """Check the ranges of all values."""
        if not 0 <= self.dropout < 1:
            raise SettingError(f"spectra.dropout must lie in [0, 1), not {self.dropout}")
        if not 0 <= self.crop < 0.5:
            raise SettingError(f"spectra.crop must lie in [0, 0.5), not {self.crop}")
        for name in ("shift", "drift", "noise"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise SettingError(f"spectra.{name} must be 0 or more, not {value}")
        if not 0 < self.share <= 1:
            raise SettingError(f"spectra.share must lie in (0, 1], not {self.share}")
        if self.share < 1 and self.width[0] < 1:
            raise SettingError(
                f"spectra.width: spectra that are spared (spectra.share {self.share:g}) keep the default "
                f"width, so no other can be narrower; let the range begin at 1 instead of {self.width[0]:g}"
            )
        for name in ("scale", "width", "gain"):
            low, high = getattr(self, name)
            if not 0 < low <= high < math.inf:
                raise SettingError(f"spectra.{name} must be two ascending positive numbers, not {low},{high}")

    def distorts(self) -> bool:
        """Return whether any setting other than dropout is on."""
        return replace(self, dropout=0.0, share=1.0) != SpectraConfig()

    def broadening(self, lines: Collection[str], modalities: Collection[str]) -> "dict[str, Broadening]":
        """Return the broadening of the lines, before they are widened to the width drawn; {} for the default.

        Args:
            lines: modalities that the store holds as lines.
            modalities: those of the batches.

        Raises:
            SettingError: if samples would have to become narrower.
        """
        low = self.width[0]
        samples = [name for name in modalities if name not in lines]
        if low < 1 and samples:
            raise SettingError(
                f"spectra.width: the {samples[0]} spectra are samples, which cannot be made narrower; "
                f"let the range begin at 1 instead of {low:g}"
            )
        if low >= 1:
            return {}
        from molspectra.data.store.store import Broadening

        return {name: Broadening(fwhm=low * modality(name).fwhm) for name in modalities if name in lines}


@dataclass(frozen=True)
class PretrainWeights:
    """Weights of the pre-training losses."""

    denoising: float = 1.0
    """Denoising of the Gaussian noise on the atoms."""
    reconstruction: float = 1.0
    """Masked patch reconstruction, summed over modalities."""
    alignment: float = 1.0
    """Contrastive alignment."""
    slide: float = 1.0
    """Force of the noise on internal coordinates (where denoising.kind is "slide")."""
    spectrum: float = 0.0
    """Prediction of the spectra from the structure, summed over modalities (stage 2); 0 adds no head."""

    def __post_init__(self) -> None:
        """Refuse what would drive a loss up."""
        weights = (self.denoising, self.slide, self.reconstruction, self.alignment, self.spectrum)
        _refuse_negative("weights", *weights)


class RunSettings:
    """What the configurations of all runs can do."""

    def replace(self, **settings: Any) -> Self:
        """Return a configuration with some other settings; this one stays as it is.

        Args:
            settings: by full name, such as `**{"loop.steps": 500}`, or nested: `loop={"steps": 500}`. With
                `init` an encoder that is not given, too, goes back to its default, which a run replaces by
                that of the model that `init` names.

        Raises:
            InputError: an unknown setting, or a value that does not fit.
        """
        source = type(self).__name__
        changes = flat(settings, source)
        values: dict[str, Any] = {}
        if changes.get("init"):
            values["model"] = {"encoder": to_dict(ModelConfig().encoder)}
        put(values, changes, source)
        return from_dict(type(self), values, source, self)  # type: ignore[type-var]

    def __str__(self) -> str:
        """Return all settings as YAML, which `--config` and `molspectra.recipe` read from a file."""
        return yaml.safe_dump(to_dict(self), sort_keys=False, default_flow_style=None, width=100).rstrip()


@dataclass(frozen=True)
class PretrainConfig(RunSettings):
    """A pre-training run: stage 1 without, stage 2 with a spectrum encoder in `model`."""

    model: ModelConfig = field(default_factory=ModelConfig)
    """The model."""
    data: DataConfig = field(default_factory=DataConfig)
    """The molecules."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """The loop."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer."""
    denoising: DenoisingConfig = field(default_factory=DenoisingConfig)
    """Denoising."""
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    """Masked patch reconstruction (stage 2)."""
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    """Alignment (stage 2)."""
    spectra: SpectraConfig = field(default_factory=SpectraConfig)
    """What happens to the spectra of training batches (stage 2)."""
    weights: PretrainWeights = field(default_factory=PretrainWeights)
    """Weights of the losses."""
    init: str | None = None
    """Run, checkpoint or shipped model ("small") whose encoder and noise head the run starts from; null: from
    scratch."""

    def __post_init__(self) -> None:
        """Give the model the head that its denoising needs."""
        if self.denoising.kind == "slide" and not self.model.force_head:
            object.__setattr__(self, "model", replace(self.model, force_head=True))
        if self.weights.spectrum > 0 and not self.model.spectrum_head:
            object.__setattr__(self, "model", replace(self.model, spectrum_head=True))
        names = ["denoising", *(["slide"] if self.denoising.kind == "slide" else [])]
        if self.model.spectrum_encoder is not None:
            names += ["reconstruction", "alignment", "spectrum"]
        if not any(getattr(self.weights, name) for name in names):
            raise SettingError(f"weights: nothing to learn; one of {', '.join(names)} must be above 0")
        _refuse_no_validation(self.optimizer, self.loop)


@dataclass(frozen=True)
class FinetuneConfig(RunSettings):
    """A fine-tuning run on one property, or on several at once."""

    target: str = "gap"
    """Column of the store to learn; several, separated by commas, get a head each and are learnt at once.
    A row may lack some of their labels."""
    classes: tuple[str, ...] = ()
    """Targets whose values 0 and 1 are two classes, whose probability is learnt by cross-entropy; wins over
    `model.property`. The command line takes several words too."""
    vectors: tuple[str, ...] = ()
    """Targets that are vectors: one called dipole is learnt from the columns dipole_x, dipole_y and dipole_z,
    and turns with the molecule."""
    tensors: tuple[str, ...] = ()
    """Targets that are symmetric tensors, from the columns NAME_xx, NAME_yy, NAME_zz, NAME_xy, NAME_xz and
    NAME_yz."""
    forces: bool = False
    """Also learn the store's forces as the negative gradient of the (first) target."""
    model: ModelConfig = field(default_factory=ModelConfig)
    """The model; its encoder must fit `init`."""
    data: DataConfig = field(default_factory=DataConfig)
    """The molecules."""
    loop: LoopConfig = field(default_factory=LoopConfig)
    """The loop."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimizer."""
    supervised: SupervisedConfig = field(default_factory=SupervisedConfig)
    """The supervised loss."""
    denoising: DenoisingConfig = field(default_factory=lambda: DenoisingConfig(sigma=0.005))
    """Noise of the noisy nodes."""
    energy_weight: float = 1.0
    """Weight of the property's loss, of each where there are several."""
    force_weight: float = 1.0
    """Weight of the forces' loss."""
    denoising_weight: float = 0.1
    """Weight of the denoising loss (noisy nodes); 0 leaves structures clean."""
    noisy_nodes: Literal["auto", "joint", "separate", "reference"] = "auto"
    """What is learnt from the moved structure. "joint": everything in one pass, with the labels of the clean
    structure (published for QM9). "separate": denoising alone, in a pass of its own; labels belong to the
    clean one. "reference": as joint, and atoms are moved even if `denoising_weight` is 0 (published for MD17,
    whose forces then belong to other coordinates). "auto": separate with forces, joint without."""
    energy_smoothing: float = 1.0
    """α of the exponential smoothing of the loss of the (first) property (published for MD17: 0.05); 1 for
    none."""
    init: str | None = None
    """Run or checkpoint to start from; null starts from scratch."""

    def __post_init__(self) -> None:
        """Refuse what cannot be learnt."""
        for target in self.names:
            if target in RESERVED or not target:
                raise SettingError(f"target: {target!r} is not a property; settings of its own deal with it")
        if len(set(self.targets)) < len(self.targets):
            raise SettingError(f"target: a column is given twice in {self.target!r}")
        kinds = {"classes": self.classes, "vectors": self.vectors, "tensors": self.tensors}
        for kind, names in kinds.items():
            for name in names:
                if name not in self.names:
                    raise SettingError(f"{kind}: {name!r} is not a target; the targets are {self.target}")
        several = [name for names in kinds.values() for name in set(names)]
        if len(set(several)) < len(several):
            raise SettingError("classes, vectors, tensors: a target is of one kind only")
        if self.forces and self.names[0] in (*self.vectors, *self.tensors):
            raise SettingError(
                f"forces: they are the gradient of an energy, and {self.names[0]!r} is none; "
                "name an energy first, or leave the forces out"
            )
        if self.forces and self.loop.compile:
            raise SettingError(
                "loop.compile: learning forces takes second derivatives, which torch.compile has not; "
                "leave it off"
            )
        _refuse_negative("weights", self.energy_weight, self.force_weight, self.denoising_weight)
        if not 0 < self.energy_smoothing <= 1:
            raise SettingError(f"energy_smoothing must lie in (0, 1], not {self.energy_smoothing}")
        if self.denoising.kind != "coord":
            raise SettingError("denoising: noisy nodes of a fine-tuning run take the kind coord")
        _refuse_no_validation(self.optimizer, self.loop)

    @property
    def names(self) -> tuple[str, ...]:
        """What is learnt, with a head each; forces belong to the first."""
        return tuple(name.strip() for name in self.target.split(","))

    def columns(self, name: str) -> tuple[str, ...]:
        """Columns of the store that one of the names stands for: its own, or those of its components."""
        kind = "vector" if name in self.vectors else "tensor" if name in self.tensors else ""
        return tuple(f"{name}{suffix}" for suffix in COMPONENTS.get(kind, ("",)))

    @property
    def targets(self) -> tuple[str, ...]:
        """Columns of the store to learn."""
        return tuple(column for name in self.names for column in self.columns(name))

    @property
    def labels(self) -> tuple[str, ...]:
        """All that batches carry to learn from: the targets, and "forces" where these are learnt."""
        return (*self.targets, "forces") if self.forces else self.targets

    @property
    def noise_mode(self) -> str:
        """What `noisy_nodes` means: "joint", "separate" or "reference"."""
        if self.noisy_nodes != "auto":
            return self.noisy_nodes
        return "separate" if self.forces else "joint"


RunConfig = PretrainConfig | FinetuneConfig
"""The settings of any run."""


def _refuse_negative(what: str, *values: float) -> None:
    if min(values) < 0:
        raise SettingError(f"{what}: no weight may be negative")


def _refuse_no_validation(optimizer: OptimizerConfig, loop: LoopConfig) -> None:
    if optimizer.schedule.kind == "plateau" and not loop.validate_every:
        raise SettingError(
            "optimizer.schedule: a plateau is seen in validations only; set loop.validate_every, "
            "such as the steps of one pass over the training rows"
        )
