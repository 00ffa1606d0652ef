"""Every knob of a run: its type, its default, its range, what it means.

These dataclasses are Hydra's schema (unknown keys and wrong types are refused by it) and the only place where defaults
and ranges are written down. A section stands beside the code that reads it where that code lies below this room; the
others stand here.
"""

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from omegaconf import MISSING

from pipeline.config.folder import known_protocols
from pipeline.data.settings import DataConfig
from pipeline.dufm.choices import CONSTRAINTS, TEMPERATURE
from pipeline.dufm.objectives import known_objectives, load_objective
from pipeline.metrics.engine.settings import PAIRS, MeasureSettings
from pipeline.metrics.registry.family import known_families
from pipeline.networks.settings import POOLINGS, NetworkConfig
from pipeline.runtime.settings import knob as _knob

if TYPE_CHECKING:  # --help and a mistyped argument need no PyTorch
    import torch

    from pipeline.dufm.objectives import Objective

LIGHTNINGS = ("csv", "tensorboard", "mlflow")
"""Trackers that are loggers of Lightning's."""
CENTRES = "centres"
"""A loss of networks alone: fixed centres instead of a classifier."""
FRAMES = ("orthonormal", "simplex")
"""What its centres are made of."""


@dataclass
class BackboneConfig(NetworkConfig):
    """The network whose features are measured and frozen."""

    from_run: str | None = _knob(None, "folder of a run whose trained backbone is taken over", path=True)
    checkpoint: str | None = _knob(None, "file with the network's weights (state dict or safetensors)", path=True)
    checkpoint_prefix: str | None = _knob(None, "what stands before the network's names in it, where it is not obvious")
    checkpoints: str | None = _knob(
        None,
        "protocol=network: pattern of files, each a state of the network to be measured: runs/*.ckpt",
        path=True,
    )
    epochs: int = _knob(20, "training epochs; 0 keeps the weights it starts with", ge=0)
    batch_size: int = _knob(128, "mini-batch size; 0: all images at once", ge=0)
    loss: str = _knob("mse", "training loss of the backbone by itself", choices=lambda: (*known_objectives(), CENTRES))
    centres: int = _knob(20, "loss=centres: unit centres of the largest class; smaller ones have more", ge=1, le=10_000)
    most_centres: int = _knob(100, "loss=centres: of any class", ge=1, le=10_000)
    frame: str = _knob(
        "orthonormal",
        "loss=centres: orthonormal directions; simplex: one centre per class, the vertices of a simplex",
        choices=FRAMES,
    )
    angle: float = _knob(0.2, "loss=centres: theta of its centres cos(theta) v_cj + sin(theta) w_c", ge=0, le=1.5708)
    mixup: float = _knob(
        0.0, "training mixes images of a batch by a weight from Beta(alpha, alpha): alpha; 0: no", ge=0
    )
    classifier_bias: bool = _knob(True, "whether the linear classifier that the backbone is trained under has a bias")
    layers: Any = _knob(None, "what is measured: patterns of module names or classes, [layer*,**.attn]; null finds it")
    read: Any = _knob(None, "how layers are read where that is not to be found out, {layer*: nhwc, blocks.*: cls}")
    pooling: str = _knob(
        "average", "how maps and tokens of its layers are read by default: averaged, or whole", choices=POOLINGS
    )

    def batch_of(self, count: int) -> int:
        """Images in a batch where there are so many in all."""
        return min(self.batch_size or count, count)


@dataclass
class FeaturesConfig:
    """The features below a head: what is kept of a frozen backbone for other runs, and what binds free ones."""

    cache: str | None = _knob(
        None, "folder shared by runs, in which features are kept and found; null keeps none", path=True
    )
    constraint: str = _knob(
        "none",
        "free features are projected onto it, at the start and after every step; in end_to_end the network's are "
        "mapped onto it before the head, by ReLU and division by the norm",
        choices=CONSTRAINTS,
    )
    anchor: str = _knob(
        "none",
        "what free features are tied to by beta/2 ||H_1 - A||^2: none; inputs: where they start, e.g. the frozen "
        "features; or a file with A, .npy, .csv or .safetensors",
        path=True,
    )
    anchor_strength: float = _knob(0.0, "beta of the anchor; with anchor_steps, mu of each step", ge=0)
    anchor_steps: int = _knob(
        1,
        "T of an anchor of several layers, mu/2 sum_t ||H_(t+1) - H_t||^2, H_0 = A: the path is straight, beta is mu/T",
        ge=1,
    )


@dataclass
class OptimizerConfig:
    """How the backbone is trained, and the head with it in end_to_end."""

    name: str = _knob(MISSING, "optimizer", choices=("sgd", "adam", "adamw", "lbfgs"))
    lr: float = _knob(0.05, "learning rate", gt=0)
    momentum: float = _knob(0.9, "SGD momentum", ge=0, lt=1)
    weight_decay: float = _knob(5e-4, "weight decay on all weights it trains", ge=0)
    iterations: int = _knob(20, "lbfgs: most iterations in a step", ge=1, le=10_000)
    schedule: str = _knob(
        "cosine",
        "learning rate over the epochs; drop: a tenth of it in the last fifth; one_cycle: up and down, batch by batch",
        choices=("cosine", "constant", "drop", "one_cycle"),
    )


@dataclass
class HeadConfig:
    """The deep unconstrained features model: L weight matrices, ReLU between them, no biases unless asked for."""

    depth: int = _knob(4, "L, the number of weight matrices; 0: the features are the outputs", ge=0, le=1000)
    width: int = _knob(64, "units in every hidden layer", ge=1)
    weight_decay: Any = _knob(5e-3, "lambda_W: one number, or a list with one per layer", ge=0)
    feature_decay: float = _knob(5e-6, "lambda_H1, the decay of input features that are not frozen", ge=0)
    loss: str = _knob("mse", "what the outputs are fitted with", choices=known_objectives)
    temperature: float = _knob(TEMPERATURE, "supervised_contrastive: tau, which divides inner products", gt=0)
    bias: str = _knob("none", "last: the last layer has a bias", choices=("none", "last"))
    bias_decay: float = _knob(0.0, "mu: mu/2 ||bias||^2 is a term of the loss", ge=0)
    inputs: str = _knob("frozen", "frozen: features stay; free: they descend too", choices=("frozen", "free"))
    activation: str = _knob("relu", "non-linearity between the layers", choices=("relu", "linear"))
    init_scale: float = _knob(1.0, "weights start as N(0, init_scale^2 / fan_in)", gt=0)

    def __post_init__(self) -> None:
        # Also as a yes or no.
        self.bias = {"True": "last", "False": "none", "None": "none"}.get(str(self.bias), self.bias)


@dataclass
class DescentConfig:
    """Full-batch gradient descent of the head, all seeds in one batch."""

    steps: int = _knob(10_000, "gradient steps", ge=1)
    lr: float = _knob(0.1, "learning rate", gt=0)
    momentum: float = _knob(0.0, "heavy-ball momentum", ge=0, lt=1)
    seeds: int = _knob(3, "how many initialisations descend at once", ge=1)
    precision: str = _knob(
        "float64",
        "arithmetic of the descent; auto: of frozen features, products in float32 until their rounding shows",
        choices=("float64", "float32", "tf32", "auto"),
    )
    records_per_decade: int = _knob(10, "measurements per factor of ten in steps", ge=1, le=1000)
    polish: bool = _knob(
        False,
        "at the end L-BFGS in float64 (with ReLU after heavy-ball steps), every seed by itself, and the norm of the "
        "final gradient",
    )
    sharded: str = _knob(
        "auto",
        "frozen features on several processes: each descends on those of its own images, and gradients are added up; "
        "auto: where all of them would take more than half of a process's memory",
        choices=("auto", "true", "false"),
    )

    def __post_init__(self) -> None:
        # YAML reads them as booleans.
        self.sharded = {"True": "true", "False": "false"}.get(str(self.sharded), self.sharded)


@dataclass
class ProtocolConfig:
    """What is run. Settings that name a protocol belong to it alone; `dufm` uses no images."""

    name: str = _knob(MISSING, "protocol", choices=known_protocols)
    regularization: str = _knob(
        "standard",
        "standard: the optimizer decays all trained weights (optimizer.weight_decay); objective: half of that times "
        "their squared norm is a term of the loss instead; dufm (end_to_end, fixed_head): head.weight_decay on the "
        "head, head.feature_decay on its inputs, none in the backbone",
        choices=("standard", "objective", "dufm"),
    )
    penalty_weights: str = _knob(
        "equal",
        "objective: what weights count in the penalty: all 1; depth: 1/L; steps: rho_l/leak in leaky networks",
        choices=("equal", "depth", "steps"),
    )
    solution: str = _knob(
        "descent", "fixed_head: how the DUFM is solved for its head", choices=("descent", "constructed")
    )
    every: int | None = _knob(None, "epochs between two measurements of a training; null: a logarithmic schedule", ge=1)
    num_classes: int = _knob(2, "dufm: K", ge=2)
    samples_per_class: int = _knob(50, "dufm: n", ge=1)
    num_features: int = _knob(64, "dufm: dimension of the input features; mean_field: p, that of its features", ge=1)
    class_sizes: Any = _knob(
        None,
        "dufm: samples of each class, [40,20,10,2], which says K, too; or of num_classes by a formula, "
        "{step: {largest: 100, ratio: 10, share: 0.5}} or {long_tail: {largest: 100, ratio: 0.01}}; "
        "null: samples_per_class",
    )
    targets: str = _knob(
        "labels",
        "what outputs are fitted to: labels; teacher: dufm: a linear map of hidden inputs, drawn with the seed, "
        "num_classes outputs; or a file with a matrix (N, K), .npy, .csv or .safetensors; end_to_end, 3 numbers of "
        "each image: teacher, a random network; statistics, brightness and differences of neighbouring pixels",
        path=True,
    )
    features: str = _knob("random", "dufm: older name of start", choices=("random", "balanced"))
    start: str = _knob(
        "random",
        "dufm: where descent begins: random; balanced; spectral; file: start_file; or the name of a reference of "
        "theory, with underscores for blanks (collapsed, zero_solution, ...)",
    )
    start_file: str | None = _knob(
        None,
        "dufm: safetensors with features/1, weights/1, ..., bias, as a run leaves them; it says the widths, too",
        path=True,
    )
    start_noise: float = _knob(
        0.0, "dufm: scale of a random start that is added to another one; of spectral: spread of singular values", ge=0
    )
    feature_scale: float | None = _knob(
        None, "dufm: random features start as N(0, feature_scale^2 / num_features); null: head.init_scale", gt=0
    )
    repeats: int = _knob(1, "kernels, shallow, mean_field: data sets, of the seeds seed, seed+1, ..", ge=1, le=100_000)
    adaptive_width: float | None = _knob(
        None, "kernels: width of the erf network whose adapted kernel is measured, too; null: it is not", gt=0
    )
    adaptive_ridge: float = _knob(1e-6, "kernels: variance of the noise that this network expects on its targets", gt=0)
    network_width: int | None = _knob(
        None, "kernels: width of networks of two layers that are trained on the data, too; null: none", ge=1
    )
    network_epochs: int = _knob(1000, "kernels: steps of gradient descent of these networks", ge=0)
    network_lr: float = _knob(1e-3, "kernels: their learning rate", gt=0)
    hidden: Any = _knob(
        None, "shallow: widths of the layers below the last of networks that are trained on the data, too; null: none"
    )
    starts: int = _knob(10, "shallow: random starts of these networks", ge=1, le=1000)
    iterations: int = _knob(400, "shallow: iterations of L-BFGS of these networks, at most", ge=1)
    network_draws: int = _knob(3, "kernels: on how many of the data sets they are trained, at most", ge=1)
    neurons: int = _knob(512, "mean_field: N_1, neurons of the hidden layer", ge=1)
    phi: str = _knob("tanh", "mean_field: what follows its first weights", choices=("tanh", "relu"))
    gamma: float = _knob(1.0, "mean_field: factor of the outputs", gt=0)
    neuron_decay: float | None = _knob(
        None, "mean_field: lambda_rho of its neurons; null: optimizer.weight_decay, that of W", ge=0
    )
    last_layer: str = _knob("trained", "mean_field: whether W moves", choices=("trained", "frozen"))
    temperature: float = _knob(0.0, "mean_field: 1/beta, of the noise that its neurons get in every step", ge=0)


@dataclass
class TrainerConfig:
    """Where it runs."""

    accelerator: str = _knob("auto", "device kind", choices=("auto", "cpu", "gpu"))
    devices: int = _knob(1, "processes per machine, each with a GPU of its own if there are GPUs", ge=1)
    num_nodes: int = _knob(1, "machines of the run", ge=1)
    threads: int | None = _knob(None, "CPU threads of each process; null leaves PyTorch's choice", ge=1, le=1024)
    compile: str = _knob(
        "auto", "compile the backbone's training step; auto: where it pays", choices=("auto", "on", "off")
    )
    precision: str = _knob(
        "float32",
        "arithmetic of the backbone while it trains; auto: bf16 where the hardware has it, else float32; float64: "
        "weights and features, too; tf32: a GPU's products of float32, in training and measuring",
        choices=("float32", "float64", "bf16", "tf32", "auto"),
    )
    deterministic: bool = _knob(False, "refuse operations without a deterministic algorithm; matters on GPUs")
    callbacks: Any = _knob(
        None, "callbacks of Lightning's in the training, [{_target_: package.module.Class, argument: value}, ...]"
    )
    checkpoint_seconds: float = _knob(30.0, "seconds between two checkpoints of a training or a descent", ge=0)

    def __post_init__(self) -> None:
        # YAML reads a bare on or off as true or false.
        self.compile = {"True": "on", "False": "off"}.get(str(self.compile), self.compile)


@dataclass
class LoggerConfig:
    """Experiment tracking; the local record is written in any case."""

    name: str = _knob(MISSING, "tracker", choices=("wandb", "none", *LIGHTNINGS))
    also: list[str] = _knob([], "further trackers at once, [csv,tensorboard]")
    mode: str = _knob("offline", "wandb mode; online needs a key and a network", choices=("offline", "online"))
    entity: str | None = _knob(None, "wandb team or user; null: that of the key")
    project: str = _knob("deep-neural-collapse", "wandb project, mlflow experiment")
    group: str | None = _knob(None, "group; null takes the multirun's name, or else the experiment's")
    tags: list[str] = _knob([], "tags")
    notes: str | None = _knob(None, "notes, free text")
    runs: str = _knob(
        "per_job",
        "per_job: one wandb run, curves are means over seeds; per_seed: one per seed, in a group",
        choices=("per_job", "per_seed"),
    )
    keys: str = _knob(
        "place", "names of curves: head/layer_2/post/dnc1; metric: dnc1/head/layer_2/post", choices=("place", "metric")
    )
    alert: bool = _knob(False, "wandb alerts: diverged, verdict reached, failed, finished")
    artifact: bool = _knob(
        False, "wandb: the trained backbone and tensors.safetensors as artifacts; that of backbone.from_run as used"
    )
    histograms: bool = _knob(False, "wandb, tensorboard: histograms of features' norms at the end, by layer")
    uri: str | None = _knob(None, "mlflow: server or folder; null: MLFLOW_TRACKING_URI, or mlflow/ in the run's folder")
    patience: float = _knob(10.0, "seconds a run may wait for wandb's server in all; uploads go on that long", ge=1)


@dataclass
class VerdictConfig:
    """A layer counts as collapsed when the metrics that tell so for head.loss are at most their thresholds."""

    dnc1: float = _knob(1e-2, "within-class over between-class variability", gt=0)
    dnc2: float = _knob(1.1, "condition number of the class means (1 is orthogonal)", ge=1)
    dnc3: float = _knob(0.1, "mean sine between weight rows and class means", gt=0)
    thresholds: Any = _knob(None, "of other metrics, e.g. {nc2_simplex: 0.2}; null leaves those of head.loss")


@dataclass
class MeasureConfig:
    """How layers are measured."""

    families: list[str] = _knob(
        ["core"], "families of metrics; all: every one whose inputs are given", choices=known_families
    )
    min_samples: int = _knob(1, "classes with fewer images of a split than this are left out of its metrics", ge=1)
    max_samples: int | None = _knob(None, "classes with more are left out too; null sets no limit", ge=1)
    positions: bool = _knob(False, "every token or pixel of a layer is a row, with its image's label or its own")
    every: int = _knob(1, "epochs between two measurements of families other than core", ge=1)
    pairs: str = _knob("consecutive", "places that similarity, and blocks that jacobians, compare", choices=PAIRS)
    probe_ridge: float = _knob(1e-2, "penalty of the linear probe of the family probe", gt=0)
    foreign_directions: int | None = _knob(
        None, "leading directions that the family foreign holds rows against; null: classes - 1", ge=1
    )
    jacobian_samples: int = _knob(16, "training images at which the family jacobians takes Jacobians", ge=1)
    coupling_rank: int = _knob(5, "K, singular triples that couplings of blocks count, at most their width", ge=1)

    @property
    def settings(self) -> MeasureSettings:
        """The same for those who measure."""
        taken = {entry.name: getattr(self, entry.name) for entry in fields(MeasureSettings)}
        return MeasureSettings(**taken | {"families": tuple(self.families)})


@dataclass
class RecordConfig:
    """What the run folder keeps."""

    max_tensor_mb: float = _knob(512.0, "skip tensors.safetensors above this size (MiB)", gt=0)
    figures: bool = _knob(True, "draw figures/ at the end; in a sweep of small jobs that takes longer than they do")


@dataclass
class Config:
    """One run."""

    seed: int = _knob(0, "seed of everything; head seeds are seed, seed + 1, ...", ge=0, lt=2**32)
    stop_when_collapsed: bool = _knob(False, "end a training once all layers it trains meet the verdict's thresholds")
    data: DataConfig = field(default_factory=DataConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    features: FeaturesConfig = field(default_factory=FeaturesConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    descent: DescentConfig = field(default_factory=DescentConfig)
    protocol: ProtocolConfig = field(default_factory=ProtocolConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    verdict: VerdictConfig = field(default_factory=VerdictConfig)
    measure: MeasureConfig = field(default_factory=MeasureConfig)
    record: RecordConfig = field(default_factory=RecordConfig)

    @property
    def weight_decays(self) -> tuple[float, ...]:
        """Decay of W_1 .. W_L."""
        decay = self.head.weight_decay
        return tuple(decay) if isinstance(decay, list) else (float(decay),) * self.head.depth

    @property
    def objective(self) -> "Objective":
        """What the head minimises, beside its penalties."""
        return load_objective(self.head.loss).configured(self.head)

    def thresholds_of(self, objective: "Objective") -> dict[str, float]:
        """Largest value that counts as collapsed, for each metric that is judged where this is minimised: those of the
        section `verdict`, and what else the objective's collapse speaks of."""
        own = {name: value for name, value in vars(self.verdict).items() if name != "thresholds"}
        others = {promise.metric: promise.threshold for promise in objective.collapse if promise.metric not in own}
        return own | others | (self.verdict.thresholds or {})

    @property
    def pooling(self) -> str:
        """How layers are read where nothing else is said of them."""
        return "positions" if self.measure.positions else self.backbone.pooling

    @property
    def device(self) -> "torch.device":
        """Where the run computes."""
        import torch

        return torch.device("cuda" if self.trainer.accelerator != "cpu" and torch.cuda.is_available() else "cpu")
