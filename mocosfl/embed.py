"""What an encoder makes of pictures: `python -m mocosfl.embed <folder> checkpoint=<run folder>`."""

import csv
import io
import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl.config.command_line import with_folder
from mocosfl.config.embed import EmbedConfig
from mocosfl.config.hydra_setup import hydra_command
from mocosfl.system.errors import user_errors
from mocosfl.system.files import check_writable, replaced, write_atomically
from mocosfl.system.logs import setup_logging

if TYPE_CHECKING:
    from mocosfl.encoders.embedding import PictureFolder, Unreadable
    from mocosfl.encoders.image_encoder import ImageEncoder
    from mocosfl.encoders.neighbours import Neighbours
    from mocosfl.pictures.neighbours import Shown

_SHEET_PIXELS = 128  # of a picture on the sheet, at most


@hydra_command("embed")
def main(config: EmbedConfig) -> None:
    """Write the features of a folder of pictures, and which of them are most alike."""
    setup_logging()
    with user_errors():
        embed(config)


def embed(config: EmbedConfig) -> None:
    """Write `features.npy`, `images.csv`, `encoder.json` and `neighbours.png`.

    Raises:
        ValueError, FileNotFoundError: a setting is wrong, the checkpoint or the pictures are not
            there, or pictures can't be read.
    """
    # Imported here, so that --help and typing errors do not wait for torch.
    from mocosfl.encoders.embedding import list_pictures, num_threads, write_features
    from mocosfl.encoders.image_encoder import load_encoder
    from mocosfl.encoders.neighbours import check_neighbours
    from mocosfl.rules.embed import validate_embed
    from mocosfl.rules.machine import check_gpu
    from mocosfl.system.device import chosen_device

    validate_embed(config)
    check_gpu(config.accelerator)
    pictures = list_pictures(Path(config.images))
    # Before minutes of work, and again after it: pictures left out make them fewer.
    check_neighbours(config.num_neighbors, len(pictures.files))
    folder = _output_folder(config)
    check_writable(folder)  # before minutes of work
    encoder = load_encoder(config.checkpoint, which=config.which)
    encoder.to(chosen_device(config.accelerator))
    _say(f"encoder: {encoder.extra_repr()}\n{_announcement(pictures)}")
    with _made(folder):
        files, unreadable = write_features(
            encoder,
            pictures.files,
            folder / "features.npy",
            batch_size=config.extract_batch_size,
            num_workers=num_threads(config.num_workers),
            skip_unreadable=config.skip_unreadable,
        )
    read = pictures._replace(files=files)
    _write_tables(read, unreadable, encoder, config, folder)
    _print_files(read, unreadable, encoder, folder)
    _draw_sheet(read, encoder, config, folder)
    _print_next(config, folder)


def _say(text: str) -> None:
    """Print a text, whatever the names of files in it; at once, since minutes may follow."""
    from mocosfl.encoders.embedding import printable

    print(printable(text), flush=True)


@contextmanager
def _made(folder: Path) -> Iterator[None]:
    """Make a folder, and remove what was made if nothing comes of it."""
    fresh = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # one that isn't empty stays, and those above it
            for path in fresh:
                path.rmdir()
        raise


def _output_folder(config: EmbedConfig) -> Path:
    """Return the folder for the results: in the run, where `checkpoint` is one or of one."""
    from mocosfl.runs.chosen_checkpoint import choose

    images = Path(config.images).resolve()
    name = f"embed_{images.name or 'root'}"
    folder = choose(
        config.checkpoint,
        config.which,
        name=name,
        output_dir=config.output_dir,
        without_run=Path(name),
    ).output
    if folder.resolve().is_relative_to(images):
        raise ValueError(
            f"output_dir={folder}: lies in the folder of images, where the picture sheet would be "
            "one of them the next time; choose another, as in output_dir=../embedded"
        )
    return folder


def _announcement(pictures: "PictureFolder") -> str:
    classes = {pictures.class_of(file) for file in pictures.files} - {""}
    told = f"pictures: {len(pictures.files):,} in {pictures.path}"
    if classes:
        told += f", {len(classes):,} class folder{'s' if len(classes) > 1 else ''}"
    if pictures.num_others:
        files = "file" if pictures.num_others == 1 else "files"
        told += f"; {pictures.num_others:,} other {files}, not pictures by their names"
    return told


def _write_tables(
    pictures: "PictureFolder",
    unreadable: "list[Unreadable]",
    encoder: "ImageEncoder",
    config: EmbedConfig,
    folder: Path,
) -> None:
    """Write which picture each row is of, and where the features come from."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("row", "path", "class"))
    for row, file in enumerate(pictures.files):
        rows.writerow((row, pictures.relative(file), pictures.class_of(file)))
    write_atomically(folder / "images.csv", table.getvalue())
    facts = {
        "checkpoint": config.checkpoint,
        "which": None if Path(config.checkpoint).is_file() else config.which,
        **encoder.facts._asdict(),
        "images": str(pictures.path.resolve()),
        "num_images": len(pictures.files),
        "unreadable": [pictures.relative(file) for file, _ in unreadable],
    }
    write_atomically(folder / "encoder.json", json.dumps(facts, indent=1) + "\n")


def _print_files(
    pictures: "PictureFolder",
    unreadable: "list[Unreadable]",
    encoder: "ImageEncoder",
    folder: Path,
) -> None:
    if unreadable:
        first = f"{unreadable[0].file} ({unreadable[0].reason})"
        more = f", like {len(unreadable) - 1:,} more" if len(unreadable) > 1 else ""
        _say(f"left out: {first}{more}; all in {folder}/encoder.json")
    shape = f"({len(pictures.files):,}, {encoder.num_features})"
    _say(f"features: {folder}/features.npy, {shape} float32")
    _say(f"which picture each row is: {folder}/images.csv")


def _draw_sheet(
    pictures: "PictureFolder", encoder: "ImageEncoder", config: EmbedConfig, folder: Path
) -> None:
    """Draw `neighbours.png`, or with `num_neighbors=0` remove an older one."""
    import numpy as np

    from mocosfl.encoders.neighbours import choose_queries, nearest_neighbours
    from mocosfl.pictures.neighbours import SheetRow, draw_neighbours

    file = folder / "neighbours.png"
    if config.num_neighbors == 0:
        file.unlink(missing_ok=True)  # it would be of other features
        return
    features = np.load(folder / "features.npy", mmap_mode="r")
    queries = choose_queries(len(features), config.num_queries, config.seed)
    found = nearest_neighbours(features, queries, config.num_neighbors)
    rows = [
        SheetRow(
            _shown(pictures, int(query)),
            [_shown(pictures, int(row)) for row in rows],
            [float(value) for value in similarities],
        )
        for query, rows, similarities in zip(*found, strict=True)
    ]
    title = f"Nearest of {len(features):,} pictures by cosine\n{encoder.extra_repr()}"
    with replaced(file) as picture:
        draw_neighbours(rows, picture, title=title)
    _say(f"nearest neighbours: {file}{_agreement(pictures, found)}")


def _shown(pictures: "PictureFolder", row: int) -> "Shown":
    """Return a picture for the sheet: what the encoder sees of it, in more pixels."""
    from mocosfl.data.image_folder import blamed_on, fit_square, open_upright
    from mocosfl.pictures.neighbours import Shown

    file = pictures.files[row]
    with blamed_on("images"):  # one that has changed since its features were made
        picture = open_upright(file)
    pixels = fit_square(picture, min(*picture.size, _SHEET_PIXELS))
    return Shown(pixels, pictures.class_of(file), Path(pictures.relative(file)).name)


def _agreement(pictures: "PictureFolder", found: "Neighbours") -> str:
    names = [pictures.class_of(file) for file in pictures.files]
    pairs = [(q, row) for q, rows in zip(found.queries, found.rows, strict=True) for row in rows]
    if len(set(names)) < 2:
        return ""
    same = sum(names[query] == names[row] for query, row in pairs)
    return f"; {same} of the {len(pairs)} shown are of their query's class folder"


def _print_next(config: EmbedConfig, folder: Path) -> None:
    from mocosfl.runs.chosen_checkpoint import EXPORTED

    features = str(folder / "features.npy")
    _say(f"in Python: features = numpy.load({features!r})")
    if Path(config.checkpoint).suffix != EXPORTED:
        of_run = config.which != "last" and Path(config.checkpoint).is_dir()
        which = f" --which {config.which}" if of_run else ""
        checkpoint = shlex.quote(config.checkpoint)
        _say(f"next: python -m mocosfl.export encoder {checkpoint}{which} --out encoder")


if __name__ == "__main__":
    with user_errors():
        sys.argv[1:] = with_folder(sys.argv[1:])
    main()
