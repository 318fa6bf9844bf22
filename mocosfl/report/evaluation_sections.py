"""The sections of what was found out about a run's encoder: by probes, and by attacks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mocosfl.config.methods import method_of
from mocosfl.config.probe import MIN_MAP_IMAGES
from mocosfl.report.charts import COLOURS, Line, draw_chart
from mocosfl.report.curves import STEPS, Axis, Quantity, drawable_curves
from mocosfl.report.embedded_pictures import Album
from mocosfl.report.page_model import Figure, Missing, Part, Table
from mocosfl.report.paths_in_words import quoted_path
from mocosfl.report.results import PROBES
from mocosfl.report.runs import Run
from mocosfl.runs.evaluation_folders import AttackFolder, ProbeFolder
from mocosfl.runs.folder import RunFolder
from mocosfl.runs.json_records import read_record

_MISSING = "-"
_NOT_INVERTED = ("whole", None)  # of a run's cut: nothing crosses one
_QUANTITY = Quantity(
    "", "Probes over their epochs", "accuracy, % of test images",
    "Top-1 of each trained probe after each of its epochs.", percent=True,
)  # fmt: skip
_EPOCHS = Axis(STEPS.column, "epochs of the probe")


def probe_part(run: Run, album: Album, anchor: str) -> Part:
    """Return the accuracies on the test images, with what is drawn of them."""
    title, name = "Probe", f"{anchor}probe"
    folder, place = RunFolder(run.folder), quoted_path(run.folder)
    files = ProbeFolder(folder.probe)
    if not files.results.is_file():
        missing = Missing(
            "No probe yet. It trains a linear classifier on the frozen features:",
            f"python linear_probe.py checkpoint={place}",
        )
        others = list(_other_probes(folder))
        tables = [_probe_table({}, others)] if others else []
        return Part(title, name, tables=tables, missing=[missing])
    values, others = read_record(files.results), list(_other_probes(folder))
    words = [
        f"Accuracies on the test images, of the encoder after {values['encoder_step']:,} steps; "
        "its weights stand still."
    ]
    figures = [
        *_probe_curves(files.metrics),
        *album.figure(
            files.per_class, "Accuracy of each class", "Of each probe, after its "
            "last epoch, on the test images.",
        ),
        *album.figure(
            files.embedding_map, "Embedding map", "t-SNE of the features of a "
            "sample of test images, a dot each. Who lies beside whom tells something, distances "
            "across the map don't.",
        ),
    ]  # fmt: skip
    return Part(
        title,
        name,
        words=words,
        tables=[_probe_table(values, others)],
        figures=figures,
        missing=list(_missing_probes(folder, place)),
    )


def _other_probes(folder: RunFolder) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield title and results of the probes of other encoders of the run."""
    others = {"best checkpoint": folder.probe_best, "untrained": folder.probe_untrained}
    for title, other in others.items():
        results = ProbeFolder(other).results
        if results.is_file():
            yield title, read_record(results)


def _missing_probes(folder: RunFolder, place: str) -> Iterator[Missing]:
    if not ProbeFolder(folder.probe).embedding_map.is_file():
        yield Missing(
            "No embedding map: the probe was made with embedding_map_images=0, or there are fewer "
            f"than {MIN_MAP_IMAGES} test images.",
            f"python linear_probe.py checkpoint={place}",
        )
    if not ProbeFolder(folder.probe_untrained).results.is_file():
        yield Missing(
            "Nothing to compare with: what the same probes make of the network before training",
            f"python linear_probe.py checkpoint=none run={place}",
        )


def _probe_table(values: dict[str, Any], others: list[tuple[str, dict[str, Any]]]) -> Table:
    header = ["probe", "final, %", "best, %", "best epoch", *(f"{t}, final, %" for t, _ in others)]
    knn = ["kNN", _percent(values.get("knn_top1")), _MISSING, _MISSING]
    rows = [knn + [_percent(other.get("knn_top1")) for _, other in others]]
    for name in _names(values, others):
        own = values.get("probes", {}).get(name, {})
        row = [name, _percent(own.get("final_top1")), _percent(own.get("best_top1"))]
        row.append(str(own.get("best_epoch", _MISSING)))
        found = [other.get("probes", {}).get(name, {}) for _, other in others]
        row += [_percent(other.get("final_top1")) for other in found]
        rows.append(row)
    words = (
        "Top-1. Final, after the last epoch, is the result; the best epoch is chosen by the same "
        "test images, so it flatters."
    )
    return Table(header, rows, words)


def _names(values: dict[str, Any], others: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return the trained probes that any of the encoders has had."""
    known = (values, *(other for _, other in others))
    return list(dict.fromkeys(name for found in known for name in found.get("probes", {})))


def _percent(value: float | None) -> str:
    return _MISSING if value is None else f"{100 * value:.2f}"


def _probe_curves(path: Path) -> list[Figure]:
    curves = drawable_curves(path)
    if not curves:
        return []
    titles = {names.logged: names.title for names in PROBES.values()}
    lines = [
        Line(titles.get(name, name), curve, COLOURS[index % len(COLOURS)])
        for index, (name, curve) in enumerate(curves.items())
    ]
    chart = draw_chart(_QUANTITY, _EPOCHS, lines)
    return [Figure(_QUANTITY.title, _QUANTITY.words, chart=chart)]


def attack_part(run: Run, album: Album, anchor: str) -> Part:
    """Return how well what the head sends up can be inverted."""
    title, name = "Attack", f"{anchor}attack"
    part = Part(title, name)
    folder = RunFolder(run.folder)
    for attack, of in ((folder.attack, "last"), (folder.attack_best, "best")):
        files = AttackFolder(attack)
        if files.results.is_file():
            values = read_record(files.results)
            part.words.append(_attack_words(values, of))
            part.tables.append(_attack_table(values["attacks"]))
            part.figures.extend(
                album.figure(
                    files.reconstructions,
                    "Reconstructions",
                    "Attacked images above what each attacker makes of what the head sends up.",
                )
            )
    central = method_of(run.settings.get("method.name")).central
    if not part.tables and run.base()["cut"] not in _NOT_INVERTED and not central:
        part.missing.append(
            Missing(
                "Not attacked yet: can images be reconstructed from what the head sends up?",
                f"python -m mocosfl.attack checkpoint={quoted_path(run.folder)}",
            )
        )
    return part


def _attack_words(values: dict[str, Any], of: str) -> str:
    client = values["client"]
    victims = "all training images" if client is None else f"client {client}"
    shape = " x ".join(str(size) for size in values["smashed_shape"])
    return (
        f"{values['num_images']:,} images of {victims}, reconstructed from what the head sends up "
        f"({shape} numbers an image), by attackers that know {values['num_known']:,} other images; "
        f"the {of} checkpoint, after {values['encoder_step']:,} steps."
    )


def _attack_table(attacks: dict[str, Any]) -> Table:
    header = ["attack", "MSE", "SSIM", "SSIM (torchmetrics)", "PSNR, dB"]
    digits = {"mse": 4, "ssim": 3, "ssim_torchmetrics": 3, "psnr": 1}
    rows = [
        [name, *(_spread(found[quantity], places) for quantity, places in digits.items())]
        for name, found in attacks.items()
    ]
    words = (
        "Mean ± standard deviation over the images. The higher the SSIM, the more is seen; the "
        "mean image is the guess of who sees nothing of what is sent."
    )
    return Table(header, rows, words)


def _spread(spread: dict[str, Any], places: int) -> str:
    mean, std = spread["mean"], spread["std"]
    if mean is None:
        return "exact"
    return f"{mean:.{places}f}" + ("" if std is None else f" ± {std:.{places}f}")
