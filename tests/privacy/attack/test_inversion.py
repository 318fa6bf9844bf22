"""Both attackers on heads of which the answer is known."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from mocosfl.models.split import Bottleneck, split_backbone
from mocosfl.privacy.attack.inversion import (
    DecoderSettings,
    OptimisationSettings,
    PixelHead,
    Search,
    decode_all,
    invert,
    relative_error,
    smash,
    total_variation,
    train_decoder,
    try_searches,
)
from mocosfl.privacy.ssim import ssim
from tests.support.sample_crops import crops

QUICK = DecoderSettings("conv_normN0C8", 2, 20, 1e-3, 0.2)
Head = Callable[[Tensor], Tensor]


class Constant(nn.Module):
    """Sends the same up whatever the image."""

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, H) to ones (B, 4, H / 2, H / 2)."""
        return images[:, :1, ::2, ::2].expand(-1, 4, -1, -1) * 0 + 1


def resnet_head(*, bottleneck: Bottleneck | None = None) -> PixelHead:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        split = split_backbone(
            "resnet18", width=8, image_size=16, cut_layer=1, bottleneck=bottleneck
        )
    return PixelHead(split.head, mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.3])


def mean_ssim(first: Tensor, second: Tensor) -> float:
    return float(ssim(first, second).mean())


# ---- the head as the attacker knows it


def test_pixel_head_normalises_and_is_frozen():
    head = PixelHead(nn.Conv2d(3, 2, 1), mean=[0.5, 0.4, 0.3], std=[0.2, 0.25, 0.5])
    images = crops(2, 16, seed=0)
    normalised = (images - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / torch.tensor(
        [0.2, 0.25, 0.5]
    ).view(3, 1, 1)
    torch.testing.assert_close(head(images), head.head(normalised))
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_head_that_is_attacked_stays_as_it_was():
    owner = nn.Conv2d(3, 2, 1).train()
    PixelHead(owner, mean=[0, 0, 0], std=[1, 1, 1])
    assert owner.training
    assert owner.weight.requires_grad


# ---- the decoder


def test_decoder_recovers_images_from_an_identity_head():
    known, victims = crops(80, 16, seed=0), crops(16, 16, seed=1)
    settings = DecoderSettings("plain", 11, 4, 3e-3, 0.1)
    trained = train_decoder(known, known, settings, seed=0)
    assert mean_ssim(decode_all(trained.decoder, victims, batch_size=8), victims) > 0.95


def test_decoder_recovers_nothing_from_a_constant_head():
    # Large crops: within half a window of the border any two pictures are alike, see `ssim`.
    known, victims = crops(48, 64, seed=0), crops(16, 64, seed=1)
    settings = DecoderSettings("conv_normN0C8", 4, 8, 1e-2, 0.1)
    smashed = smash(Constant(), known, batch_size=16)
    trained = train_decoder(smashed, known, settings, seed=0)
    found = decode_all(trained.decoder, smash(Constant(), victims, batch_size=16), batch_size=16)
    assert mean_ssim(found, victims) < 0.2


def test_decoder_of_the_same_seed_has_the_same_bits_and_of_another_has_not():
    known = crops(30, 16, seed=0)
    one, same, other = (train_decoder(known, known, QUICK, seed=seed) for seed in (3, 3, 4))
    outputs = [decode_all(t.decoder, known, batch_size=30) for t in (one, same, other)]
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(one.validation, same.validation)
    assert not torch.equal(outputs[0], outputs[2])


def test_decoder_leaves_the_global_random_state_alone():
    known = crops(8, 16, seed=0)
    before = torch.random.get_rng_state()
    train_decoder(known, known, QUICK, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_decoder_kept_is_that_of_the_best_validation():
    known = crops(40, 16, seed=0)
    # So high a rate makes epochs worse than those before them.
    trained = train_decoder(known, known, DecoderSettings("conv_normN0C8", 6, 8, 0.3, 0.25), seed=1)
    rows = trained.validation
    again = (decode_all(trained.decoder, known[rows], batch_size=8) - known[rows]).square().mean()
    assert float(again) == pytest.approx(trained.validation_mse, rel=1e-6)
    shorter = [
        train_decoder(known, known, DecoderSettings("conv_normN0C8", n, 8, 0.3, 0.25), seed=1)
        for n in range(1, 7)
    ]
    # Each run sees the same first epochs, so the best of the longest is the best of all.
    assert trained.validation_mse == min(run.validation_mse for run in shorter)
    assert trained.best_epoch == min(
        n for n, run in enumerate(shorter, 1) if run.validation_mse == trained.validation_mse
    )


@pytest.mark.parametrize(("number", "held_out"), [(2, 1), (3, 1), (10, 2), (30, 6)])
def test_validation_images_are_a_part_and_never_all(number: int, held_out: int):
    known = crops(number, 16, seed=0)
    trained = train_decoder(known, known, QUICK, seed=0)
    assert len(trained.validation.unique()) == len(trained.validation) == held_out


def test_last_batch_too_small_for_batch_norm_is_left_out(monkeypatch: pytest.MonkeyPatch):
    rows: list[int] = []
    forward = nn.BatchNorm2d.forward

    def noted(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        if layer.training:
            rows.append(len(x))
        return forward(layer, x)

    monkeypatch.setattr(nn.BatchNorm2d, "forward", noted)
    known = crops(61, 16, seed=0)  # 12 validate, 49 train: batches of 25 and 24, or 20, 20 and 9
    train_decoder(known, known, DecoderSettings("conv_normN0C8", 1, 25, 1e-3, 0.2), seed=0)
    assert set(rows) == {25, 24}
    rows.clear()
    train_decoder(known, known, QUICK, seed=0)
    assert set(rows) == {20}


def test_few_images_are_one_batch_without_batch_norm():
    known = crops(6, 16, seed=0)
    trained = train_decoder(known, known, QUICK, seed=0)
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in trained.decoder.modules())


# ---- the search


def search(head: Head, victims: Tensor, way: Search, steps: int, start: Tensor) -> Tensor:
    assert isinstance(head, nn.Module)
    smashed = smash(head, victims, batch_size=8)
    return invert(head, smashed, start, way, steps, block_images=8).images


def test_search_recovers_images_from_an_identity_head():
    victims = crops(12, 16, seed=1)
    head = PixelHead(nn.Identity(), mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])
    found = search(head, victims, Search("grey", 0.1, 0.0, 0), 200, victims * 0 + 0.5)
    assert mean_ssim(found, victims) > 0.95


def test_search_recovers_images_from_the_stem_of_a_resnet():
    victims = crops(12, 16, seed=1)
    way = Search("grey", 0.1, 1e-3, 0)
    found = search(resnet_head(), victims, way, 250, victims * 0 + 0.5)
    assert mean_ssim(found, victims) > 0.95


def test_search_recovers_nothing_from_a_constant_head():
    known, victims = crops(48, 64, seed=0), crops(12, 64, seed=1)
    start = known.mean(dim=0, keepdim=True).expand_as(victims)
    found = search(Constant(), victims, Search("mean", 0.1, 0.01, 0), 10, start)
    assert mean_ssim(found, victims) < 0.2


def test_search_repeats_bit_for_bit_and_does_not_depend_on_the_blocks():
    victims = crops(5, 16, seed=1)
    head, way = resnet_head(bottleneck=Bottleneck(4, 2)), Search("grey", 0.03, 0.01, 0)
    smashed = smash(head, victims, batch_size=5)
    start = victims * 0 + 0.5
    one, same = (invert(head, smashed, start, way, 20, block_images=5) for _ in range(2))
    assert torch.equal(one.images, same.images)
    parts = invert(head, smashed, start, way, 20, block_images=2)
    torch.testing.assert_close(parts.images, one.images, rtol=0, atol=1e-3)
    torch.testing.assert_close(parts.relative_error, one.relative_error, rtol=1e-2, atol=1e-4)


def test_search_keeps_pixels_in_range_and_the_start_as_it_was():
    victims = crops(2, 16, seed=1)
    start = torch.full_like(victims, 0.5)
    found = search(resnet_head(), victims, Search("grey", 0.5, 0.0, 0), 5, start)
    assert found.min() >= 0
    assert found.max() <= 1
    assert torch.equal(start, torch.full_like(victims, 0.5))


def test_heavier_prior_gives_smoother_images():
    victims = crops(4, 16, seed=1)
    light, heavy = (
        search(resnet_head(), victims, Search("grey", 0.1, weight, 0), 50, victims * 0 + 0.5)
        for weight in (0.0, 1.0)
    )
    assert (total_variation(heavy) < 0.5 * total_variation(light)).all()


def test_best_way_to_search_comes_first_and_all_were_tried():
    images = crops(4, 16, seed=1)
    settings = OptimisationSettings(20, (1e-4, 0.1), (0.0, 5.0))
    starts = {"far": 1 - images, "there": images}
    tried = try_searches(resnet_head(), images, starts, settings, block_images=4)
    assert len({(way.start, way.learning_rate, way.prior_weight) for way in tried}) == 8
    assert [way.mse for way in tried] == sorted(way.mse for way in tried)
    assert tried[0].start == "there"
    assert tried[0].prior_weight == 0.0


def test_search_that_blows_up_is_never_the_best():
    class Undefined(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            """Map an image to NaN once it is far from where the search begins."""
            return images * torch.where(images < 0.5 + 1e-2, 1.0, math.nan)

    images = torch.full((2, 3, 8, 8), 0.5)
    settings = OptimisationSettings(5, (0.3, 1e-4), (0.0,))
    starts = {"below": images - 0.05}
    tried = try_searches(Undefined(), images, starts, settings, block_images=2)
    assert tried[0].learning_rate == 1e-4
    assert math.isfinite(tried[0].mse)
    assert math.isnan(tried[1].mse)


# ---- what the search minimises


def test_relative_error_is_the_squared_distance_over_the_squared_norm():
    target = torch.tensor([3.0, 4.0]).view(1, 2, 1, 1)
    found = relative_error(target + torch.tensor([1.0, 2.0]).view(1, 2, 1, 1), target)
    assert found.tolist() == pytest.approx([5 / 25])
    assert torch.isfinite(relative_error(target, torch.zeros_like(target))).all()


def test_total_variation_of_a_ramp_is_its_slope():
    ramp = (0.1 * torch.arange(6.0)).expand(1, 3, 6, 6)
    assert float(total_variation(ramp)) == pytest.approx(0.1)
    assert float(total_variation(torch.full((1, 3, 6, 6), 0.7))) == 0
