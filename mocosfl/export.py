"""Export what a run has trained: `python -m mocosfl.export encoder|head <run folder>`.

An exported encoder is a safetensors file for `mocosfl.load_encoder` and an ONNX file for any other
program (docs/encoder.md). An exported head is an ONNX file for clients whose head is frozen
(`taressfl=on`). They run it without torch: `python -m mocosfl.edge.client --head head.onnx`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mocosfl.encoders.export_head import export_head
from mocosfl.runs.folder import WHICH
from mocosfl.system.errors import user_errors


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
    encoder.add_argument("--which", choices=WHICH, default="last", help="of a run folder")
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
    head.add_argument("--which", choices=WHICH, default="last", help="of a run folder")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
