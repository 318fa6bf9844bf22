"""Images a second: views in blocks, against torchvision image by image, on tensors and on Pillow.

    python -m benchmarks.views                   (two cores: about three minutes)

Each contestant makes two views of each image. With more threads than one, ours computes on them,
and the others do as a data loader does: as many worker processes.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.configuration import NUM_CLASSES, compose
from benchmarks.contest import Block, Contestant, Pace, race
from benchmarks.pil import pil_pipeline, tensor_pipeline, view_of
from benchmarks.results import (
    Table,
    make_parser,
    parse,
    positive,
    publish,
    ratio,
    ratios,
    spread,
)
from mocosfl.data.augmentation import ViewSettings, draw_uniforms
from mocosfl.data.view_maker import ViewMaker, view_settings

NUM_VIEWS = 2
LOADER_BATCH = 100  # images that a worker sends at a time
MEAN, STD = [0.5, 0.5, 0.5], [0.25, 0.25, 0.25]


class Images(NamedTuple):
    """What a contestant makes views of."""

    number: int  # a step
    image_size: int
    device: str  # of ours; the others compute on the CPU
    num_threads: int

    def pixels(self) -> np.ndarray:
        """Return noise (number, H, W, 3) uint8."""
        shape = (self.number, self.image_size, self.image_size, 3)
        return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def settings() -> ViewSettings:
    """Return the views of `moco=v2`."""
    names = ("dataset=arrays", "dataset.path=none", "dataset.image_size=32")
    return view_settings(compose((*names, f"dataset.num_classes={NUM_CLASSES}", "moco=v2")))


def blocks(images: Images, pace: Pace) -> None:
    """Make all views of a step in one block, as a run does."""
    pixels, device = images.pixels(), torch.device(images.device)
    maker = ViewMaker(pixels, settings(), mean=MEAN, std=STD, device=device)
    generator = torch.Generator().manual_seed(0)
    pace.begin()
    while True:
        uniforms = torch.stack([draw_uniforms(generator, len(pixels)) for _ in range(NUM_VIEWS)])
        maker.views(np.arange(len(pixels)), uniforms)
        pace.step_done()


class OneByOne(Dataset[Tensor]):
    """Images of which an item is two views (2, 3, O, O)."""

    def __init__(self, pixels: np.ndarray, pipeline: v2.Compose, *, pillow: bool) -> None:
        """Keep images (N, H, W, 3) uint8 and what makes a view of one."""
        self.pixels, self.pipeline, self.pillow = pixels, pipeline, pillow
        self.planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.pixels)

    def __getitem__(self, index: int) -> Tensor:
        """Make the views of an image."""
        picture = Image.fromarray(self.pixels[index]) if self.pillow else self.planes[index]
        return torch.stack([view_of(self.pipeline, picture) for _ in range(NUM_VIEWS)])


def one_by_one(images: Images, pace: Pace, *, pillow: bool) -> None:
    """Make the views image by image, in worker processes where there is more than one thread."""
    make = pil_pipeline if pillow else tensor_pipeline
    pipeline = make(settings(), image_size=images.image_size, mean=MEAN, std=STD)
    num_workers = images.num_threads if images.num_threads > 1 else 0
    loader = DataLoader(
        OneByOne(images.pixels(), pipeline, pillow=pillow),
        batch_size=min(LOADER_BATCH, images.number),
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
    )
    pace.begin()
    while True:
        for _ in _all(loader):
            pass
        pace.step_done()


def _all(loader: DataLoader[Tensor]) -> Iterator[Tensor]:
    yield from loader


CONTESTANTS: dict[str, Contestant] = {
    "ours, in blocks": blocks,
    "torchvision v2 on tensors": partial(one_by_one, pillow=False),
    "torchvision on Pillow": partial(one_by_one, pillow=True),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the command line asks for."""
    parser = make_parser("Augmented images a second, two views of each.", repeats=7)
    parser.add_argument("--images", type=positive, default=2000, help="of a step; a block has one")
    parser.add_argument("--image-size", type=positive, default=32, help="side, pixels")
    options = parse(parser, arguments)
    results = []
    for num_threads in dict.fromkeys((1, options.threads)):
        images = Images(options.images, options.image_size, options.device, num_threads)
        measured = race(
            {name: (contestant, images) for name, contestant in CONTESTANTS.items()},
            device=options.device,
            num_threads=num_threads,
            repeats=options.repeats,
            num_steps=1,
        )
        results.append(_result(num_threads, images, measured))
    publish("views", options, [_table(results)], {"cases": results})


def _result(num_threads: int, images: Images, measured: dict[str, list[Block]]) -> dict[str, Any]:
    times = {name: [block.step_seconds for block in of] for name, of in measured.items()}
    own = times["ours, in blocks"]
    return {
        "threads": num_threads,
        "blocks": {name: [block.plain() for block in of] for name, of in measured.items()},
        "images_per_second": {n: images.number / spread(of).median for n, of in times.items()},
        "ours_is_faster": {n: ratios(of, own)._asdict() for n, of in times.items() if of != own},
        "ratio_texts": {n: ratio(ratios(of, own)) for n, of in times.items() if of != own},
    }


def _table(results: Sequence[dict[str, Any]]) -> Table:
    columns = ["threads", "pipeline", "images/s", "ours is faster by"]
    rows = [
        [str(r["threads"]), name, f"{r['images_per_second'][name]:,.0f}",
         r["ratio_texts"].get(name, "")]
        for r in results
        for name in r["blocks"]
    ]  # fmt: skip
    return Table(f"Images a second, {NUM_VIEWS} views of each", columns, rows)


if __name__ == "__main__":
    main()
