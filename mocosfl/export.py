"""Export what a run has trained: `python -m mocosfl.export encoder|head <run folder>`.

An exported encoder is a safetensors file for `mocosfl.load_encoder` and an ONNX file for any other
program (docs/encoder.md). An exported head is an ONNX file for clients whose head is frozen
(`taressfl=on`). They run it without torch: `python -m mocosfl.edge.client --head head.onnx`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mocosfl.system.errors import user_errors
from mocosfl.system.files import check_writable

if TYPE_CHECKING:
    from torch import nn

    from mocosfl.edge.client.exported_head import HeadFacts
    from mocosfl.encoders.parity import Parity, Runner
    from mocosfl.runs.checkpoint import Encoder


class Exported(NamedTuple):
    """A head that was written."""

    file: Path
    facts: "HeadFacts"
    parity: "Parity"  # on random images


def main(arguments: Sequence[str]) -> None:
    """Export what the command line asks for."""
    options = _parsed(arguments)
    with user_errors():
        options.export(options)


def _export_encoder(options: argparse.Namespace) -> None:
    """Write an encoder; say what was written and how to use it."""
    # Imported here, so that --help and typing errors do not wait for torch.
    from mocosfl.encoders.export_encoder import export_encoder

    encoder, files, checked_on = export_encoder(
        options.checkpoint,
        options.out,
        which=options.which,
        formats=list(dict.fromkeys(options.format)),
        pictures=options.images,
    )
    print(f"encoder: {encoder.extra_repr()}\nchecked on: {checked_on}")
    for file, parity in files:
        print(
            f"written: {file} ({file.stat().st_size:,} bytes); largest difference from torch: "
            f"{parity.difference:.1e}, torch's own rounding: {parity.rounding:.1e}, largest "
            f"feature: {parity.largest:.2g}"
        )
    print(
        "\nIn Python:\n" + "\n".join(_USES[file.suffix].format(file=str(file)) for file, _ in files)
    )


_USES = {  # of what was written
    ".safetensors": """
    import mocosfl
    encoder = mocosfl.load_encoder({file!r})
    features = encoder(encoder.preprocess("picture.jpg"))""",
    ".onnx": """
    import onnxruntime  # without torch and mocosfl; images: float32 (B, 3, S, S) in [0, 1]
    session = onnxruntime.InferenceSession({file!r})
    features = session.run(["features"], {{"images": images}})[0]""",
}


def _export_head(options: argparse.Namespace) -> None:
    """Write a head; say what was written."""
    exported = export_head(options.checkpoint, options.out, which=options.which)
    facts = exported.facts
    shape = "x".join(map(str, facts.smashed_shape))
    print(
        f"head: {facts.backbone}, cut {facts.cut_layer}, {facts.step:,} training steps, images of "
        f"{facts.image_size} px to {shape}\n"
        f"digest: {facts.digest}\n"
        f"largest difference from torch: {exported.parity.difference:.1e}; torch's own "
        f"rounding: {exported.parity.rounding:.1e}\n"
        f"written: {exported.file} ({exported.file.stat().st_size:,} bytes)"
    )


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m mocosfl.export", description=__doc__)
    parts = parser.add_subparsers(required=True, metavar="PART")
    encoder = parts.add_parser("encoder", help="the whole network, images to features")
    encoder.set_defaults(export=_export_encoder)
    encoder.add_argument(
        "checkpoint", type=Path, help="a run folder, a .ckpt file or an exported .safetensors"
    )
    encoder.add_argument(
        "--out",
        type=Path,
        default=Path("encoder"),
        metavar="FOLDER",
        help="folder for encoder.safetensors and encoder.onnx; default: encoder",
    )
    encoder.add_argument(
        "--which", choices=("last", "best"), default="last", help="of a run folder"
    )
    encoder.add_argument(
        "--format",
        nargs="+",
        choices=("safetensors", "onnx"),
        default=("safetensors", "onnx"),
        help="default: both; onnx needs pip install -e '.[onnx]'",
    )
    encoder.add_argument(
        "--images",
        type=Path,
        metavar="FOLDER",
        help="pictures on which the files are compared with torch; default: random images",
    )
    head = parts.add_parser("head", help="what a client with a frozen head runs")
    head.set_defaults(export=_export_head)
    head.add_argument("checkpoint", type=Path, help="a run folder, or a .ckpt file")
    head.add_argument(
        "--out", type=Path, default=Path("head.onnx"), help="file to write; default: head.onnx"
    )
    head.add_argument("--which", choices=("last", "best"), default="last", help="of a run folder")
    return parser.parse_args(arguments)


def export_head(checkpoint: Path, out: Path, *, which: str = "last") -> Exported:
    """Write the synchronised head of a checkpoint as ONNX, and compare what is written with it.

    Args:
        checkpoint: a run folder or a checkpoint file.
        out: the file to write; one that is there is replaced, but only by one that was checked.
        which: `last` or `best`, of a run folder.

    Raises:
        FileNotFoundError: there is no such checkpoint.
        ValueError: it is none of ours, has no head, `out` can't be written, or the file's outputs
            are not the head's.
    """
    from mocosfl.runs.checkpoint import check_head, find_checkpoint, read_encoder

    check_writable(out.parent, "--out")
    encoder = read_encoder(find_checkpoint(checkpoint, which))
    check_head(encoder.config, f"checkpoint={checkpoint}")
    return write_head(encoder, out)


def write_head(encoder: "Encoder", out: Path) -> Exported:
    """Write an encoder's head; see `export_head`."""
    try:
        import onnx

        from mocosfl.edge.client.exported_head import INPUT, OUTPUT, ExportedHead
        from mocosfl.encoders.onnx_graph import to_onnx
    except ModuleNotFoundError as error:
        raise ValueError(
            f"{error.name} is not installed, and an export needs it: pip install -e '.[edge]'"
        ) from error
    import torch

    from mocosfl.encoders.parity import NUM_RANDOM, write_checked

    head: nn.Module = encoder.network[0]  # type: ignore[index]  # the head, then the trunk
    size = encoder.config.dataset.image_size
    model = to_onnx(head, size, input_name=INPUT, output_name=OUTPUT)
    shape = [end.dim_value for end in model.graph.output[0].type.tensor_type.shape.dim[1:]]
    facts = _facts(encoder, head, (shape[0], shape[1], shape[2]))
    onnx.helper.set_model_props(model, facts.to_metadata())
    onnx.checker.check_model(model, full_check=True)
    out.parent.mkdir(parents=True, exist_ok=True)

    def write(file: Path) -> "Runner":
        onnx.save(model, file)
        exported = ExportedHead(file)
        return lambda images: torch.from_numpy(exported(images.numpy()))

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(NUM_RANDOM, 3, size, size, generator=generator)
    return Exported(out, facts, write_checked(out, write, head, images))


def _facts(encoder: "Encoder", head: "nn.Module", shape: tuple[int, int, int]) -> "HeadFacts":
    from torch.nn.utils import parameters_to_vector

    from mocosfl.edge.client.exported_head import HeadFacts
    from mocosfl.edge.wire import head_digest

    config = encoder.config
    cut_layer = config.split.cut_layer
    assert cut_layer is not None  # or nothing crosses a cut, see check_head
    return HeadFacts(
        digest=head_digest(parameters_to_vector(head.parameters()).detach().numpy()),
        smashed_shape=shape,
        image_size=config.dataset.image_size,
        mean=tuple(config.dataset.mean),
        std=tuple(config.dataset.std),
        backbone=config.backbone.name,
        cut_layer=cut_layer,
        step=encoder.step,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
