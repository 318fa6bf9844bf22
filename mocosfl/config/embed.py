"""The schema of `python -m mocosfl.embed`; its defaults are in conf/embed.yaml."""

from dataclasses import dataclass

from omegaconf import MISSING


@dataclass
class EmbedConfig:
    """`python -m mocosfl.embed`: features of a folder of pictures."""

    images: str = MISSING  # folder of pictures, at any depth; its subfolders are classes
    checkpoint: str = MISSING  # a run folder, a .ckpt file or an exported .safetensors
    which: str = MISSING  # in a run folder: last or best
    output_dir: str | None = None  # null: embed_<folder> in the run folder, or in the current one
    accelerator: str = MISSING  # cpu, gpu or auto
    extract_batch_size: int = MISSING  # pictures a forward pass; three times so many are in memory
    num_workers: int | None = None  # threads that decode; null: a thread a core
    skip_unreadable: bool = MISSING  # leave out what can't be read; false: refuse, with a list
    num_queries: int = MISSING  # rows of the picture sheet, at most
    num_neighbors: int = MISSING  # pictures beside each query; 0: no picture sheet
    seed: int = MISSING  # of the choice of queries; at least 0
