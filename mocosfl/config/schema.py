"""The typed schema of a run's configuration, group by group.

Hydra checks types and unknown keys against it; the rules between keys are in `mocosfl/rules/`, and
every default is in `conf/`. A comment after each field gives its meaning and unit.
"""

from dataclasses import dataclass, field

from omegaconf import MISSING

from mocosfl.config.choices import (
    Averaging,
    ClientSchedule,
    ClientState,
    FeatureKind,
    PartitionKind,
    Profiler,
    Schedule,
    Symmetric,
    TaressflMode,
)
from mocosfl.config.edge import EdgeConfig


@dataclass
class DatasetConfig:
    """`dataset=`: where the images come from."""

    name: str = MISSING  # folder of the cache under data_dir
    source: str = MISSING  # digits, a public set such as cifar10, image_folder, pictures or arrays
    image_size: int = MISSING  # side of the square images, pixels
    num_classes: int = MISSING  # labels are 0 .. num_classes - 1
    num_train_images: int | None = MISSING  # for figures without the data; null: unknown
    mean: list[float] = MISSING  # per channel, of images scaled to [0, 1]
    std: list[float] = MISSING  # per channel, of images scaled to [0, 1]
    path: str | None = MISSING  # image_folder, pictures: the root; arrays: the folder of the files
    download: bool = MISSING  # whether a missing data set may be fetched from its public site
    test_fraction: float = MISSING  # set aside as test images where the source has no test split
    num_workers: int = MISSING  # pictures: threads that decode and crop them, at least 1


@dataclass
class SplitConfig:
    """`split=`: where the network is cut."""

    # Units on the client: 1 = stem only, 2 = stem and first block, ...; null: the whole network.
    cut_layer: int | None = MISSING
    bottleneck_channels: int | None = MISSING  # channels sent up; null: no bottleneck pair
    bottleneck_stride: int = MISSING  # 1, 2 or 4: height and width shrink by so much
    bottleneck_kernel: int = MISSING  # kernel size of the pair, odd
    bottleneck_relu: bool = MISSING  # ReLU behind each layer of the pair
    client_residual: bool = MISSING  # false: no residual connections on the client


@dataclass
class PartitionConfig:
    """`partition=`: how the training images are dealt to the clients."""

    kind: PartitionKind = MISSING  # iid, shards, dirichlet, quantity_skew or file
    classes_per_client: int = MISSING  # shards: label shards dealt to a client; 2 of 10 published
    alpha: float = MISSING  # dirichlet, quantity_skew: concentration, finite; small is skewed
    min_images: int = MISSING  # dirichlet, quantity_skew: no client has fewer images
    path: str | None = MISSING  # file: a partition.json, or the folder of a run that has one


@dataclass
class ClientsConfig:
    """`clients=`: how many there are and how they take part."""

    num_clients: int = MISSING  # N, clients in all
    batch_size: int = MISSING  # b, images a client and step
    syncs_per_round: int = MISSING  # F, times a round that the heads are averaged
    participation: float = MISSING  # fraction of the clients in a round's pool, (0, 1]
    num_rounds: int = MISSING  # rounds of the whole run; a round is a pass over a client's images
    dropout_probability: float = MISSING  # that a client of the pool misses a step, [0, 1)
    client_state: ClientState = MISSING  # bank: each client keeps its own; stateless: nothing kept


@dataclass
class HeterogeneityConfig:
    """`heterogeneity=`: rich clients with more images and larger batches than the others."""

    rich_fraction: float = MISSING  # part of the clients that are rich, [0, 1); 0: all are alike
    rich_data_fraction: float = MISSING  # part of the images that the rich hold together, (0, 1)
    rich_batch_factor: int = MISSING  # their batch is so many times clients.batch_size


@dataclass
class AveragingConfig:
    """`averaging=`: what the clients are given at a sync."""

    kind: Averaging = MISSING  # mean, by_images (weighted) or divergence_aware
    divergence_strength: float = MISSING  # divergence_aware: own share mu at the first sync, (0, 1]


@dataclass
class SavingConfig:
    """`saving=`: rounds without traffic while the loss hardly falls."""

    enabled: bool = MISSING  # whether rounds may go from full traffic to uploads alone, to none
    warmup_rounds: int = MISSING  # rounds with full traffic at the start; 10 published
    loss_threshold: float = MISSING  # nats; a round whose loss falls by less saves a step more


@dataclass
class TaressflConfig:
    """`taressfl=`: the privacy module."""

    mode: TaressflMode = MISSING  # off, on (frozen expert's head), online or expert
    expert: str | None = MISSING  # on: the expert's run folder or checkpoint; online: may be null
    decoder: str = MISSING  # of the simulated attacker: res_normN4C64, conv_normN4C64, plain ...
    decoder_lr: float = MISSING  # of its Adam; 1e-3 published
    alpha: float = MISSING  # weight of the regulariser; 2.0 published, 0: none
    target_ssim: float = MISSING  # reconstructions below are not punished, [0, 1]; 0.6 published
    target_fraction: float = MISSING  # expert: part of dataset's training images in it, [0, 1]
    target_rows: int = MISSING  # expert: rows of a batch with target images; 128 of 256 published
    auxiliary: DatasetConfig | None = None  # expert: the other images, without privacy to protect
    max_collapses: int = MISSING  # go back to the last good checkpoint so many times; 0: never
    collapse_alpha_factor: float = MISSING  # alpha from then on, (0, 1]
    collapse_lr_factor: float = MISSING  # learning rates of head and server from then on, (0, 1]


@dataclass
class BackboneConfig:
    """`backbone=`: the network."""

    name: str = MISSING  # resnet18/34/50/101/152, vgg11/13/16/19, mobilenetv2
    # Channels of the first unit, a multiple of 4; 64 published, 32 for mobilenetv2.
    width: int = MISSING


@dataclass
class AugmentationConfig:
    """`moco.augmentation`: the two views of an image."""

    crop_scale_min: float = MISSING  # smallest area of the random crop, fraction of the image
    crop_scale_max: float = MISSING  # largest area of the random crop
    crop_ratio_min: float = MISSING  # smallest width / height of the crop
    crop_ratio_max: float = MISSING  # largest width / height of the crop
    jitter_probability: float = MISSING  # of the colour jitter
    brightness: float = MISSING  # factor drawn from [1 - x, 1 + x]
    contrast: float = MISSING  # likewise
    saturation: float = MISSING  # likewise
    hue: float = MISSING  # shift drawn from [-x, x], in turns of the colour circle
    grey_probability: float = MISSING  # of turning the view grey
    blur_probability: float = MISSING  # of the Gaussian blur; 0: no blur (v1)
    blur_sigma_min: float = MISSING  # pixels
    blur_sigma_max: float = MISSING  # pixels
    flip_probability: float = MISSING  # of the horizontal flip


@dataclass
class MocoConfig:
    """`moco=`: the contrastive learner on the server."""

    queue_length: int = MISSING  # K, keys kept
    temperature: float = MISSING  # T of the softmax
    momentum: float = MISSING  # tau of the EMA copies, server and clients
    symmetric: Symmetric = MISSING  # none, server (published v2) or full (MonAcoSFL's)
    feature_sharing: bool = MISSING  # one queue for all; false: K // N keys private to each client
    projector_hidden: int | None = MISSING  # hidden size of the MLP; null: a linear projector
    projector_dim: int = MISSING  # D, size of an embedding
    projector_batch_norm: bool = MISSING  # BatchNorm behind the hidden layer
    projector_expands: bool = MISSING  # hidden size times the block expansion (4 from ResNet-50 up)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


@dataclass
class MethodConfig:
    """`method=`: the federated algorithm."""

    name: str = MISSING  # mocosfl, monacosfl, fl_moco, central_moco, or {sfl,central}_supervised
    local_epochs: int = MISSING  # passes over a client's images in a round; 1 published


@dataclass
class OptimizerConfig:
    """`optimizer=`: SGD on both sides of the cut."""

    server_lr: float = MISSING  # learning rate of trunk and projector
    client_lr: float = MISSING  # learning rate of the heads; 0 freezes them
    momentum: float = MISSING  # of SGD, each client with its own buffer
    weight_decay: float = MISSING  # L2, both sides
    schedule: Schedule = MISSING  # constant, cosine to 0, or step at 60 % and 80 % of the rounds
    client_schedule: ClientSchedule = MISSING  # rounds, or the published per-step one
    step_decay_server: float = MISSING  # step: factor at each milestone
    step_decay_client: float = MISSING  # step: factor at each milestone


@dataclass
class TrainerConfig:
    """`trainer=`: where and how fast."""

    accelerator: str = MISSING  # cpu, gpu or auto
    devices: int = MISSING  # processes that share each round's pool, a GPU each where there are any
    precision: str = MISSING  # fp32, bf16 (autocast) or fp64
    max_steps: int = MISSING  # stop after so many steps; -1: all. Schedules keep their length
    log_every_steps: int = MISSING  # between two rows of the training metrics
    view_block_images: int = MISSING  # images augmented at a time, ahead of the steps that use them
    # CPU threads of each process; null: PyTorch's choice, divided among the processes.
    num_threads: int | None = MISSING
    compile: bool = MISSING  # torch.compile for heads and trunk; the first steps wait for it
    compile_mode: str = MISSING  # of torch.compile; reduce-overhead: CUDA graphs
    keep_freed_memory: bool = MISSING  # a step's memory stays with the process for the next one
    progress_bar: bool = MISSING  # the bar in the terminal
    # Train on the images and views of the first so many steps over and over; 0: off.
    overfit_steps: int = MISSING
    profiler: Profiler = MISSING  # none, simple, advanced or pytorch; writes into profile/


@dataclass
class LoggerConfig:
    """`logger=`: where the curves go beside metrics.csv."""

    wandb: bool = MISSING  # Weights & Biases
    wandb_mode: str = MISSING  # offline (no account, no prompt) or online
    wandb_project: str = MISSING  # W&B project that the runs go to
    wandb_entity: str | None = MISSING  # W&B team or user; null: the account's default
    wandb_group: str | None = MISSING  # W&B group; null: the sweep's name, none for a single run


@dataclass
class CallbacksConfig:
    """`callbacks=`: checkpoints, the kNN monitor, the alarms, the pictures."""

    checkpoint_every_steps: int = MISSING  # last.ckpt is written after so many steps ...
    checkpoint_every_minutes: float = MISSING  # ... or minutes, whichever comes first
    knn_every_rounds: int = MISSING  # rounds between two kNN monitors; 0: never
    knn_num_images: int = MISSING  # training images in the monitor, at most
    # Part of the training images that is set aside to be classified; 0: all train, leave-one-out.
    knn_held_out_fraction: float = MISSING
    knn_num_neighbors: int = MISSING  # k
    knn_temperature: float = MISSING  # of the neighbours' weights exp(similarity / T)
    knn_features: FeatureKind = MISSING  # backbone or projection
    collapse_window_steps: int = MISSING  # steps in a row before the alarm stops the run; 0: never
    collapse_loss_margin: float = MISSING  # nats a pass; this close to the uniform loss is stuck
    collapse_min_std: float = MISSING  # spread of the embeddings times sqrt(D), below: collapsed
    pictures: bool = MISSING  # partition heat map, views, curves
    measure_client_memory: bool = MISSING  # run a client in a process of its own at the end
    probe_at_end: bool = MISSING  # linear probe and kNN on test images after the last step


@dataclass
class Config:
    """A whole run."""

    seed: int = MISSING  # of everything random; at least 0
    data_dir: str = MISSING  # folder of the data sets' caches
    output_dir: str = MISSING  # runs write into folders below it
    run_dir: str = MISSING  # where this run writes
    sweep_name: str = MISSING  # a sweep writes into output_dir/<sweep_name>, and goes on there
    resume: str | None = None  # folder of a run to continue
    notes: str = ""  # free text kept with the run
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    split: SplitConfig = field(default_factory=SplitConfig)
    partition: PartitionConfig = field(default_factory=PartitionConfig)
    clients: ClientsConfig = field(default_factory=ClientsConfig)
    heterogeneity: HeterogeneityConfig = field(default_factory=HeterogeneityConfig)
    averaging: AveragingConfig = field(default_factory=AveragingConfig)
    saving: SavingConfig = field(default_factory=SavingConfig)
    taressfl: TaressflConfig = field(default_factory=TaressflConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    moco: MocoConfig = field(default_factory=MocoConfig)
    method: MethodConfig = field(default_factory=MethodConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    callbacks: CallbacksConfig = field(default_factory=CallbacksConfig)
    edge: EdgeConfig | None = None  # remote clients; null: all are simulated
