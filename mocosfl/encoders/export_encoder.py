"""Writing an encoder as files that need nothing of the run: safetensors and ONNX.

Each file is compared with torch before it takes its name, so a file that is there is a checked one.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mocosfl.data.image_folder import blamed_on, decode_picture, walk_pictures
from mocosfl.encoders.image_encoder import ImageEncoder, load_encoder
from mocosfl.encoders.parity import NUM_RANDOM, Parity, Runner, write_checked
from mocosfl.encoders.safetensors_file import read_encoder_file, write_encoder_file
from mocosfl.system.files import check_writable

FORMATS = ("safetensors", "onnx")
INPUT, OUTPUT = "images", "features"  # of the ONNX graph
MAX_PICTURES = 64  # real ones, an even spread of the folder's
_QUIET = 3  # onnxruntime's level of errors; what it warns of is nothing that a user can change


class WrittenFile(NamedTuple):
    """A file that was written, and its check."""

    file: Path
    parity: Parity


class ExportedEncoder(NamedTuple):
    """All that was written of an encoder."""

    encoder: ImageEncoder
    files: list[WrittenFile]
    checked_on: str  # what the images of the check were


def export_encoder(
    checkpoint: Path,
    folder: Path,
    *,
    which: str = "last",
    formats: Sequence[str] = FORMATS,
    pictures: Path | None = None,
) -> ExportedEncoder:
    """Write `encoder.<format>` of a checkpoint into a folder, and compare each with torch.

    Args:
        checkpoint: a run folder, a checkpoint file or an exported `.safetensors`.
        folder: to write into, made where it is not there.
        which: `last` or `best`, of a run folder.
        formats: of `FORMATS`.
        pictures: a folder of pictures to compare on; None: random images.

    Raises:
        FileNotFoundError: no such checkpoint, or no such folder of pictures.
        ValueError: the checkpoint is none of ours, a package is missing, a picture or the folder
            can't be read or written, or a file's features are not the encoder's; then what was
            there before is left as it was.
    """
    if "onnx" in formats:
        check_onnx()
    check_writable(folder, "--out")  # before seconds of work
    encoder = load_encoder(checkpoint, which=which)
    images, checked_on = _images(encoder, pictures)
    folder.mkdir(parents=True, exist_ok=True)
    writers = {"safetensors": _write_safetensors, "onnx": _write_onnx}
    written = []
    for name in formats:
        file = folder / f"encoder.{name}"
        parity = write_checked(file, partial(writers[name], encoder), encoder, images)
        written.append(WrittenFile(file, parity))
    return ExportedEncoder(encoder, written, checked_on)


def check_onnx() -> None:
    """Check that ONNX files can be written and run here.

    Raises:
        ValueError: a package is missing.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--format onnx: {error.name} is not installed: pip install -e '.[onnx]'; or leave "
            "ONNX out, --format safetensors"
        ) from error


def _write_safetensors(encoder: ImageEncoder, file: Path) -> Runner:
    write_encoder_file(encoder.network[1:], encoder.facts, file)
    return ImageEncoder(*read_encoder_file(file))


def _write_onnx(encoder: ImageEncoder, file: Path) -> Runner:
    import onnx
    import onnxruntime

    from mocosfl.encoders.onnx_graph import to_onnx

    model = to_onnx(
        encoder.network,
        encoder.image_size,
        input_name=INPUT,
        output_name=OUTPUT,
        name="encoder",
    )
    onnx.helper.set_model_props(model, encoder.facts.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, file)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _QUIET
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run([OUTPUT], {INPUT: images.numpy()})[0])


def _images(encoder: ImageEncoder, folder: Path | None) -> tuple[Tensor, str]:
    """Return the images of the check, and what they are."""
    if folder is None:
        generator = torch.Generator().manual_seed(0)
        size = encoder.image_size
        images = torch.rand(NUM_RANDOM, 3, size, size, generator=generator)
        return images, f"{NUM_RANDOM} random images (--images FOLDER takes pictures)"
    if not folder.is_dir():
        raise FileNotFoundError(f"--images={folder}: no such folder; name one of pictures")
    with blamed_on(f"--images={folder}"):
        files = sorted(walk_pictures(folder, []))
        if not files:
            raise ValueError(f"--images={folder}: holds no pictures; name a folder that does")
        places = np.unique(np.linspace(0, len(files) - 1, MAX_PICTURES).round().astype(int))
        pixels = np.stack([decode_picture(files[place], encoder.image_size) for place in places])
    return encoder.scaled(pixels), f"{len(places)} of the {len(files):,} pictures in {folder}"
