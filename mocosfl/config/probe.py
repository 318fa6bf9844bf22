"""The schema of `linear_probe.py`; its defaults are in conf/linear_probe.yaml."""

from dataclasses import dataclass

from omegaconf import MISSING

MIN_MAP_IMAGES = 10  # of an embedding map: fewer have no neighbourhoods to show


@dataclass
class ProbeConfig:
    """`linear_probe.py`: evaluation of frozen features."""

    checkpoint: str = MISSING  # a checkpoint file, a run folder, or none for a fresh encoder
    run: str | None = None  # checkpoint=none: the run folder whose configuration to use
    which: str = MISSING  # in a run folder: last or best
    data_dir: str | None = None  # null: the run's own
    output_dir: str | None = None  # null: probe/ in the run folder
    seed: int = MISSING  # of the probes' start, their batches and the labels used; at least 0
    accelerator: str = MISSING  # cpu, gpu or auto
    extract_batch_size: int = MISSING  # images a forward pass
    num_epochs: int = MISSING  # of each probe; 100 published
    batch_size: int = MISSING  # rows a step; 128 published
    learning_rate: float = MISSING  # Adam; 1e-3 published
    hidden_dim: int = MISSING  # of the semi-supervised MLP; 512 published
    label_fractions: list[float] = MISSING  # semi-supervised: parts of the labels used
    knn_num_neighbors: int | None = MISSING  # k; null: the run's callbacks.knn_num_neighbors
    knn_temperature: float = MISSING  # of the neighbours' weights exp(similarity / T)
    embedding_map_images: int = MISSING  # test images on the t-SNE map, at most; 0: no map
    wandb: bool = MISSING  # log to the run's W&B too, where the run has one
