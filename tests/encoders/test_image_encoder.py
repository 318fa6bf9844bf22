"""An encoder that is taken away computes what the probe computes, and can't be fed wrongly."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import mocosfl
from mocosfl.data.image_folder import decode_picture
from mocosfl.encoders.facts import encoder_facts_from_metadata
from mocosfl.encoders.image_encoder import ImageEncoder, image_encoder
from mocosfl.encoders.safetensors_file import read_encoder_file, write_encoder_file
from mocosfl.evaluation.features import extract_features
from mocosfl.evaluation.probe_report import dataset_of
from mocosfl.runs.checkpoint import read_encoder
from mocosfl.runs.folder import RunFolder
from tests.support.configurations import Compose
from tests.support.exported_heads import make_encoder
from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def encoder(quick_run: RunFolder) -> ImageEncoder:
    return mocosfl.load_encoder(quick_run.path)


@pytest.fixture
def exported(encoder: ImageEncoder, tmp_path: Path) -> Path:
    """The encoder as a file."""
    write_encoder_file(encoder.network[1:], encoder.facts, tmp_path / "encoder.safetensors")
    return tmp_path / "encoder.safetensors"


def some_images(size: int = 32, batch: int = 3) -> torch.Tensor:
    return torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))


def test_features_are_those_that_the_probe_computes(quick_run: RunFolder, encoder: ImageEncoder):
    trained = read_encoder(quick_run.last)
    arrays = dataset_of(trained, None).test
    assert arrays is not None
    pixels = np.array(arrays.images[:20])
    expected = extract_features(
        trained.network,
        pixels,
        mean=trained.config.dataset.mean,
        std=trained.config.dataset.std,
        batch_size=20,
        device="cpu",
    )
    assert torch.equal(encoder(encoder.preprocess(list(pixels))), expected)
    assert float(expected.std()) > 0.01


def test_an_encoder_says_what_it_is(quick_run: RunFolder, encoder: ImageEncoder):
    config = quick_run.load_config()
    assert (encoder.backbone, encoder.dataset, encoder.step) == ("resnet18", "digits", 21)
    assert encoder.image_size == config.dataset.image_size
    assert (encoder.mean, encoder.std) == (tuple(config.dataset.mean), tuple(config.dataset.std))
    assert encoder(some_images(encoder.image_size)).shape == (3, encoder.num_features)
    assert not encoder.training and not any(p.requires_grad for p in encoder.parameters())
    assert "21 steps" in repr(encoder)


def test_checkpoints_are_named_by_run_or_by_file(quick_run: RunFolder, encoder: ImageEncoder):
    images = some_images(encoder.image_size)
    assert torch.equal(mocosfl.load_encoder(str(quick_run.last))(images), encoder(images))
    best = mocosfl.load_encoder(quick_run.path, which="best")
    assert torch.equal(mocosfl.load_encoder(quick_run.best)(images), best(images))
    assert best.step == torch.load(quick_run.best, weights_only=True)["global_step"]
    for path in (quick_run.path, quick_run.best):
        with pytest.raises(ValueError, match="which=bst: choose last or best"):
            mocosfl.load_encoder(path, which="bst")


def test_a_file_gives_the_same_encoder(exported: Path, encoder: ImageEncoder):
    loaded = mocosfl.load_encoder(exported)
    images = some_images(encoder.image_size)
    assert loaded.facts == encoder.facts
    assert torch.equal(loaded(images), encoder(images))
    assert all(name.startswith(("head.", "trunk.")) for name in load_file(exported))


@pytest.mark.parametrize(
    "overrides",
    [
        ["split=cut2_c4s4", "split.client_residual=false"],
        ["backbone=vgg11", "split=cut3"],
        ["backbone=mobilenetv2", "split=cut1_c4s2", "split.bottleneck_relu=false"],
        ["method=fl_moco"],
    ],
)
def test_every_network_comes_back_from_its_file(
    compose: Compose, tmp_path: Path, overrides: list[str]
):
    config = compose(["dataset=cifar10", "backbone.width=4", *overrides])
    encoder = image_encoder(make_encoder(config))
    write_encoder_file(encoder.network[1:], encoder.facts, tmp_path / "x.safetensors")
    loaded = mocosfl.load_encoder(tmp_path / "x.safetensors")
    assert loaded.facts == encoder.facts
    assert torch.equal(loaded(some_images()), encoder(some_images()))


def picture(mode: str, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    colours = Image.fromarray(pixels)
    if mode == "I;16":
        return Image.fromarray(np.asarray(colours.convert("L")).astype(np.uint16) * 257)
    return colours.convert(mode)


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "I;16", "P"])
@pytest.mark.parametrize("size", [(90, 40), (30, 70)])
def test_pictures_are_prepared_as_those_of_an_image_folder(
    encoder: ImageEncoder, tmp_path: Path, mode: str, size: tuple[int, int]
):
    file = tmp_path / "picture.png"
    picture(mode, size).save(file)
    pixels = decode_picture(file, encoder.image_size)
    expected = torch.from_numpy(pixels / np.float32(255)).permute(2, 0, 1)[None]
    for given in (file, str(file), Image.open(file), [file]):
        assert torch.equal(encoder.preprocess(given), expected)  # type: ignore[arg-type]


def test_pictures_are_turned_upright(encoder: ImageEncoder, tmp_path: Path):
    upright = picture("RGB", (40, 60))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "x.png", exif=exif)
    assert torch.equal(encoder.preprocess(tmp_path / "x.png"), encoder.preprocess(upright))
    with Image.open(tmp_path / "x.png") as opened:
        assert torch.equal(encoder.preprocess(opened), encoder.preprocess(upright))


def test_pixels_of_the_right_size_are_only_scaled(encoder: ImageEncoder):
    size = encoder.image_size
    pixels = np.random.default_rng(1).integers(0, 256, (2, size, size, 3), np.uint8)
    images = encoder.preprocess(list(pixels))
    assert images.dtype == torch.float32 and images.is_contiguous()
    assert torch.equal((images * 255).round().byte(), torch.from_numpy(pixels).permute(0, 3, 1, 2))


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda x: (x * 255).byte(), r"floats in \[0, 1\] expected, got torch.uint8; divide"),
        (lambda x: x * 255, r"values in \[0, 1\] expected, got .* don't normalise"),
        (lambda x: x * 4 - 2, "don't normalise"),
        (lambda x: x * torch.nan, "got nan to nan"),
        (lambda x: x[0], r"\(B, 3, \d+, \d+\) with B >= 1 expected, got \(3, "),
        (lambda x: x[..., 1:], "encoder.preprocess"),
        (lambda x: x.permute(0, 2, 3, 1), "expected, got"),
        (lambda x: x[:0], "B >= 1 expected"),
    ],
)
def test_wrong_images_are_refused(encoder: ImageEncoder, wrong: Any, message: str):
    with pytest.raises(ValueError, match=f"^images: .*{message}"):
        encoder(wrong(some_images(encoder.image_size)))


@pytest.mark.parametrize(
    "wrong, message",
    [
        ([], "none given"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"got \(2, 8, 8, 3\) uint8; a batch is given as a list"),
        (np.zeros((8, 8, 3), np.float32), "floats go to the encoder itself"),
        ([torch.zeros(3, 8, 8)], "got a Tensor"),
        ("missing.png", "^pictures: the picture missing.png can't be read"),
        (Image.new("F", (8, 8)), "^pictures: 32-bit pixels"),
    ],
)
def test_wrong_pictures_are_refused(encoder: ImageEncoder, wrong: Any, message: str):
    with pytest.raises(ValueError, match=message):
        encoder.preprocess(wrong)


def test_an_encoder_follows_its_dtype(quick_run: RunFolder, encoder: ImageEncoder):
    images = some_images(encoder.image_size)
    for dtype, tolerance in ((torch.float64, 1e-5), (torch.bfloat16, 0.1)):
        features = mocosfl.load_encoder(quick_run.path).to(dtype)(images)
        assert features.dtype == dtype
        torch.testing.assert_close(features.float(), encoder(images), rtol=0, atol=tolerance)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_an_encoder_follows_its_device(quick_run: RunFolder, encoder: ImageEncoder):
    moved = mocosfl.load_encoder(quick_run.path).to("cuda")
    pixels = picture("RGB", (50, 60))
    features = moved(moved.preprocess(pixels))
    assert features.is_cuda
    expected = encoder(encoder.preprocess(pixels))
    torch.testing.assert_close(features.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_loading_leaves_the_callers_random_numbers_alone(quick_run: RunFolder, exported: Path):
    for path in (quick_run.path, exported):
        torch.manual_seed(3)
        expected = torch.rand(2)
        torch.manual_seed(3)
        mocosfl.load_encoder(path)
        assert torch.equal(torch.rand(2), expected)


def test_the_package_is_imported_without_torch():
    code = "import sys, mocosfl; assert not {'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="has no attribute 'load_encoders'"):
        mocosfl.load_encoders  # type: ignore[attr-defined]  # noqa: B018


@pytest.mark.parametrize(
    "damage, message",
    [
        ("cut off", "not a readable safetensors file"),
        ("foreign", "not an encoder that this version of mocosfl has exported"),
        ("newer", "format 2, where this version of mocosfl reads 1"),
        ("wrong kind", "width='4'"),
        ("less", "Missing key"),
    ],
)
def test_a_file_that_is_no_encoder_is_refused(exported: Path, damage: str, message: str):
    tensors, (_, facts) = load_file(exported), read_encoder_file(exported)
    metadata = facts.to_metadata()
    if damage == "cut off":
        exported.write_bytes(exported.read_bytes()[:-100])
    elif damage == "foreign":
        save_file(tensors, exported)
    elif damage == "less":
        tensors.popitem()
        save_file(tensors, exported, metadata)
    else:
        key, value = {"newer": ("format_version", 2), "wrong kind": ("width", "4")}[damage]
        save_file(tensors, exported, {**metadata, f"mocosfl.{key}": json.dumps(value)})
    with pytest.raises(ValueError, match=f"(?s)checkpoint=.*{message}"):
        mocosfl.load_encoder(exported)


def test_facts_come_back_from_metadata(encoder: ImageEncoder):
    facts = encoder.facts._replace(cut_layer=None, mean=(0.1, 1 / 3, 1.0))
    assert encoder_facts_from_metadata(facts.to_metadata()) == facts


def test_a_run_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoints/last\.ckpt there"):
        mocosfl.load_encoder(tmp_path)
