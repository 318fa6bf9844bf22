"""Small classifiers on cached features: the linear probe and the semi-supervised heads.

The encoder is frozen and its features are computed once (`features.extract_features`), so that
100 epochs are quick, tiny steps. Features are used as they are, not
standardised.

Every probe reports two accuracies. `final_top1` is the last epoch's: it is the result. `best_top1`
is the best epoch's by the test images themselves, and it flatters.

Differs from the published code: schedules run over epochs, because theirs are stepped per batch
with periods in epochs.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from mocosfl.federation.optimizer import cosine
from mocosfl.runs.probe_names import LINEAR, ProbeName, semi_supervised_name


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is trained; SPEC values in brackets."""

    learning_rate: float  # of Adam, at the start, > 0 [1e-3]
    batch_size: int  # rows a step, at least 2 [128]
    num_epochs: int  # passes over the labelled features, at least 1 [100]
    hidden_features: int  # width of the semi-supervised head [512]
    decay_fractions: tuple[float, ...]  # semi-supervised: when, fractions of the run [0.6, 0.8]
    decay_factor: float  # semi-supervised: learning rate times this at each [0.1]


class LabelledFeatures(NamedTuple):
    """Features of images with their classes."""

    features: Tensor  # (N, D) float32
    labels: Tensor  # (N,) int64 in [0, num_classes)


class ProbeResult(NamedTuple):
    """Accuracies on the test features, fractions in [0, 1]."""

    name: ProbeName
    final_top1: float  # after the last epoch: the result
    best_top1: float  # of the best epoch, chosen by these same test images
    best_epoch: int  # counted from 1
    curve: tuple[float, ...]  # after each epoch
    per_class: Tensor  # (num_classes,) after the last epoch; NaN for a class without test images


def linear_probe(
    train: LabelledFeatures,
    test: LabelledFeatures,
    *,
    num_classes: int,
    settings: ProbeSettings,
    seed: int,
) -> ProbeResult:
    """Train a linear layer on all labels, learning rate along a cosine over the epochs.

    Args:
        train: labelled features, on the device where the probe is to run.
        test: on the same device.
        num_classes: classes of the data set.
        settings: the recipe.
        seed: of weights and order; the same seed gives the same bits (one device, CPU threads).

    Raises:
        ValueError: if features are not finite or there are none.
    """
    _check(train, test)
    generator = torch.Generator().manual_seed(seed)
    model = _linear(train.features.shape[1], num_classes, generator)
    return _train_probe(
        LINEAR, model, train, test, num_classes, settings, generator, _cosine(settings)
    )


def semi_supervised(
    train: LabelledFeatures,
    test: LabelledFeatures,
    *,
    label_fraction: float,
    num_classes: int,
    settings: ProbeSettings,
    seed: int,
) -> ProbeResult:
    """Train a two-layer head on a fraction of the labels, learning rate in steps.

    Args:
        train: all the training features; a stratified part of the labels is used.
        test: on the same device.
        label_fraction: in (0, 1]; 0.1 and 0.01 are usual.
        num_classes: classes of the data set.
        settings: the recipe.
        seed: of the part, the weights and the order.

    Raises:
        ValueError: if features are not finite or there are none.
    """
    _check(train, test)
    generator = torch.Generator().manual_seed(seed)
    rows = stratified_rows(train.labels, label_fraction, generator=generator)
    subset = LabelledFeatures(train.features[rows], train.labels[rows])
    model = nn.Sequential(
        _linear(train.features.shape[1], settings.hidden_features, generator),
        nn.BatchNorm1d(settings.hidden_features),
        nn.ReLU(),
        _linear(settings.hidden_features, num_classes, generator),
    )
    name = semi_supervised_name(label_fraction)
    return _train_probe(
        name, model, subset, test, num_classes, settings, generator, _steps(settings)
    )


def stratified_rows(labels: Tensor, label_fraction: float, *, generator: torch.Generator) -> Tensor:
    """Choose the same fraction of every class, at least one image of each class that has any.

    Args:
        labels: (N,) int64.
        label_fraction: in (0, 1].
        generator: CPU generator.

    Returns:
        Row numbers in ascending order, int64, on the labels' device.
    """
    chosen = []
    for label, total in enumerate(torch.bincount(labels.cpu()).tolist()):
        rows = (labels.cpu() == label).nonzero()[:, 0]
        count = max(1, round(label_fraction * total))
        chosen.append(rows[torch.randperm(total, generator=generator)[:count]])
    return torch.cat(chosen).sort().values.to(labels.device)


def _check(train: LabelledFeatures, test: LabelledFeatures) -> None:
    for part, (features, labels) in {"training": train, "test": test}.items():
        if len(features) == 0 or len(features) != len(labels):
            raise ValueError(f"{part} features: {len(features)} rows for {len(labels)} labels")
        if not features.isfinite().all():
            raise ValueError(
                f"{part} features hold NaN or infinity: the encoder diverged; "
                "probe an earlier checkpoint"
            )


def _linear(num_inputs: int, num_outputs: int, generator: torch.Generator) -> nn.Linear:
    """PyTorch's own starting distribution, drawn from our generator."""
    # Off the meta device: the usual constructor draws from the global generator.
    layer = nn.Linear(num_inputs, num_outputs, device="meta").to_empty(device="cpu")
    bound = 1.0 / math.sqrt(num_inputs)
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -bound, bound, generator=generator)
    return layer


def _cosine(settings: ProbeSettings) -> Callable[[int], float]:
    return lambda epoch: cosine(epoch / settings.num_epochs)


def _steps(settings: ProbeSettings) -> Callable[[int], float]:
    ends = [fraction * settings.num_epochs for fraction in settings.decay_fractions]
    return lambda epoch: settings.decay_factor ** sum(epoch >= end for end in ends)


def _train_probe(
    name: ProbeName,
    model: nn.Module,
    train: LabelledFeatures,
    test: LabelledFeatures,
    num_classes: int,
    settings: ProbeSettings,
    generator: torch.Generator,
    schedule: Callable[[int], float],
) -> ProbeResult:
    model.to(train.features.device)
    optimizer = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    curve = []
    for epoch in range(settings.num_epochs):
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * schedule(epoch)
        _train_epoch(model, optimizer, train, _batches(len(train.labels), settings, generator))
        correct = _correct(model, test)
        curve.append(float(correct.mean()))
    best = max(range(len(curve)), key=curve.__getitem__)
    per_class = _per_class(correct, test.labels, num_classes)
    return ProbeResult(name, curve[-1], curve[best], best + 1, tuple(curve), per_class)


def _train_epoch(
    model: nn.Module, optimizer: Optimizer, train: LabelledFeatures, batches: list[Tensor]
) -> None:
    for batch in batches:
        rows = batch.to(train.labels.device)
        logits = model(train.features.index_select(0, rows))
        loss = cross_entropy(logits, train.labels.index_select(0, rows))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _batches(num_rows: int, settings: ProbeSettings, generator: torch.Generator) -> list[Tensor]:
    """A permutation of the rows in batches; a last row alone joins the batch before it."""
    order = torch.randperm(num_rows, generator=generator)
    starts = range(0, num_rows, settings.batch_size)
    batches = [order[start : start + settings.batch_size] for start in starts]
    if len(batches) > 1 and len(batches[-1]) == 1:  # BatchNorm can't train on one row
        batches[-2:] = [torch.cat(batches[-2:])]
    return batches


def _correct(model: nn.Module, test: LabelledFeatures) -> Tensor:
    """1.0 for each test row that is classified rightly, else 0.0; float64 on the CPU."""
    model.eval()
    with torch.inference_mode():
        predictions = model(test.features).argmax(dim=1)
    model.train()
    correct: Tensor = predictions == test.labels
    return correct.double().cpu()


def _per_class(correct: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    labels = labels.cpu()
    totals = torch.bincount(labels, minlength=num_classes)
    return torch.bincount(labels, weights=correct, minlength=num_classes) / totals
