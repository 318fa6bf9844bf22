"""A head as an ONNX file, checked against torch."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

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
    from mocosfl.runs.checkpoint import check_has_head, find_checkpoint, read_encoder

    check_writable(out.parent, "--out")
    encoder = read_encoder(find_checkpoint(checkpoint, which))
    check_has_head(encoder.config, f"checkpoint={checkpoint}")
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
    assert cut_layer is not None  # or nothing crosses a cut, see check_has_head
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
