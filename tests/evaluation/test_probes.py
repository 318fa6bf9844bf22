"""Probes: they learn what can be learnt, repeat by seed, and report what they say."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from mocosfl.evaluation import probes
from mocosfl.evaluation.probes import LabelledFeatures, ProbeResult, ProbeSettings

SETTINGS = ProbeSettings(
    learning_rate=1e-2,
    batch_size=32,
    num_epochs=20,
    hidden_features=16,
    decay_fractions=(0.6, 0.8),
    decay_factor=0.1,
)
NUM_CLASSES = 3


def _data(num_rows: int, *, seed: int, spread: float = 0.3) -> LabelledFeatures:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(NUM_CLASSES, (num_rows,), generator=generator)
    noise = spread * torch.randn(num_rows, 8, generator=generator)
    return LabelledFeatures(torch.eye(NUM_CLASSES, 8)[labels] + noise, labels)


def _linear(
    train: LabelledFeatures, test: LabelledFeatures, *, seed: int = 0, epochs: int = 20
) -> ProbeResult:
    settings = replace(SETTINGS, num_epochs=epochs)
    return probes.linear_probe(train, test, num_classes=NUM_CLASSES, settings=settings, seed=seed)


def _semi(
    train: LabelledFeatures, test: LabelledFeatures, *, label_fraction: float, seed: int = 0
) -> ProbeResult:
    return probes.semi_supervised(
        train,
        test,
        label_fraction=label_fraction,
        num_classes=NUM_CLASSES,
        settings=SETTINGS,
        seed=seed,
    )


def test_probes_learn_separable_classes_and_not_shuffled_ones() -> None:
    train, test = _data(600, seed=0), _data(300, seed=1)
    shuffled = LabelledFeatures(train.features, train.labels.roll(1))
    assert _linear(train, test).final_top1 > 0.9
    assert _semi(train, test, label_fraction=0.1).final_top1 > 0.85
    assert _linear(shuffled, test).final_top1 < 0.6


def test_results_agree_with_each_other() -> None:
    test = _data(200, seed=1, spread=1.0)
    result = _linear(_data(100, seed=0, spread=1.0), test)
    assert len(result.curve) == 20
    assert result.final_top1 == result.curve[-1]
    assert result.best_top1 == max(result.curve) == result.curve[result.best_epoch - 1]
    counts = torch.bincount(test.labels, minlength=NUM_CLASSES)
    mean = float((result.per_class * counts).sum() / 200)
    assert mean == pytest.approx(result.final_top1)


def test_a_class_without_test_images_has_no_accuracy() -> None:
    test = _data(90, seed=1)
    rows = test.labels != 1
    part = LabelledFeatures(test.features[rows], test.labels[rows])
    result = _linear(_data(90, seed=0), part)
    assert result.per_class.isnan().tolist() == [False, True, False]


def test_same_seed_repeats_and_global_random_state_is_left_alone() -> None:
    train, test = _data(200, seed=0, spread=1.0), _data(200, seed=1, spread=1.0)
    before = torch.random.get_rng_state()
    first = _semi(train, test, label_fraction=0.5)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(99)
    assert _semi(train, test, label_fraction=0.5).curve == first.curve
    assert _semi(train, test, label_fraction=0.5, seed=1).curve != first.curve


@pytest.mark.parametrize("fraction", [0.01, 0.1, 1.0])
def test_subset_of_labels_is_stratified_with_every_class(fraction: float) -> None:
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor([500, 200, 10, 1]))
    rows = probes.stratified_rows(labels, fraction, generator=torch.Generator().manual_seed(0))
    counts = torch.bincount(labels[rows], minlength=4).tolist()
    assert counts == [max(1, round(fraction * total)) for total in (500, 200, 10, 1)]
    assert len(rows.unique()) == len(rows)


def test_subset_is_drawn_anew_with_another_seed_and_skips_absent_classes() -> None:
    labels = torch.tensor([0, 2] * 100)  # class 1 has no image
    first, second = (
        probes.stratified_rows(labels, 0.1, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    )
    assert len(first) == len(second) == 20
    assert not torch.equal(first, second)


def test_cosine_runs_over_epochs() -> None:
    schedule = probes._cosine(replace(SETTINGS, num_epochs=10))
    assert [schedule(0), schedule(5)] == pytest.approx([1.0, 0.5])
    assert 0.0 < schedule(9) < 0.03


def test_steps_are_at_60_and_80_per_cent_of_the_epochs() -> None:
    schedule = probes._steps(replace(SETTINGS, num_epochs=10))
    assert [schedule(epoch) for epoch in (0, 5, 6, 7, 8, 9)] == pytest.approx(
        [1.0, 1.0, 0.1, 0.1, 0.01, 0.01]
    )


@pytest.mark.parametrize(
    ("num_rows", "sizes"), [(8, [4, 4]), (9, [4, 5]), (10, [4, 4, 2]), (1, [1])]
)
def test_batches_hold_every_row_once_and_never_one_alone(num_rows: int, sizes: list[int]) -> None:
    settings = replace(SETTINGS, batch_size=4)
    batches = probes._batches(num_rows, settings, torch.Generator().manual_seed(0))
    assert [len(batch) for batch in batches] == sizes
    assert sorted(torch.cat(batches).tolist()) == list(range(num_rows))


def test_head_with_batchnorm_survives_a_last_row_alone() -> None:
    train = _data(33, seed=0)
    result = _semi(train, _data(30, seed=1), label_fraction=1.0)
    assert all(accuracy >= 0.0 for accuracy in result.curve)


def test_features_are_left_as_they_are() -> None:
    train, test = _data(64, seed=0), _data(30, seed=1)
    before = train.features.clone()
    _linear(train, test, epochs=2)
    assert torch.equal(train.features, before)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (torch.full((4, 8), torch.nan), "training features hold NaN"),
        (torch.zeros(0, 8), "training features: 0 rows for 4 labels"),
        (torch.zeros(3, 8), "training features: 3 rows for 4 labels"),
    ],
)
def test_useless_features_are_refused(features: Tensor, message: str) -> None:
    train = LabelledFeatures(features, torch.tensor([0, 1, 2, 0]))
    with pytest.raises(ValueError, match=message):
        _linear(train, _data(9, seed=1))
