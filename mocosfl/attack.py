"""Can the head be inverted? `python -m mocosfl.attack checkpoint=<run folder>`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import OmegaConf

from mocosfl.config.attack import AttackConfig
from mocosfl.config.hydra_setup import hydra_command
from mocosfl.system.errors import user_errors
from mocosfl.system.files import check_writable
from mocosfl.system.logs import setup_logging

if TYPE_CHECKING:
    from mocosfl.privacy.attack.comparison import Comparison
    from mocosfl.privacy.attack.images import AttackImages
    from mocosfl.privacy.attack.run import AttackResult
    from mocosfl.runs.checkpoint import Encoder
    from mocosfl.runs.folder import RunFolder

NUM_SHOWN = 12  # victims in the picture, at most: so many can be compared at a glance


@hydra_command("attack")
def main(config: AttackConfig) -> None:
    """Attack the head in a checkpoint and write what came out."""
    setup_logging()
    with user_errors():
        run_attack(config)


def run_attack(config: AttackConfig) -> None:
    """Attack the head in a checkpoint; writes `attack.json` and `reconstructions.png`.

    Raises:
        ValueError, FileNotFoundError: a setting is wrong, the checkpoint or its data are not
            there, or nothing crosses a cut in its run.
    """
    # Imported here, so that --help and typing errors do not wait for torch.
    from mocosfl.privacy.attack.images import choose_images
    from mocosfl.privacy.attack.run import as_table, attack_head, comparisons, to_json
    from mocosfl.rules.attack import validate_attack
    from mocosfl.system.files import write_atomically
    from mocosfl.tracking.loggers import log_to_wandb

    if OmegaConf.is_missing(config, "checkpoint"):
        raise ValueError(
            "checkpoint=???: name whose head to attack, checkpoint=<run folder> or a .ckpt file"
        )
    validate_attack(config)
    encoder, folder, run = _choose(config)
    check_writable(folder)  # before minutes of work
    images = choose_images(config, encoder.config, run)
    print(_announcement(encoder, images), flush=True)
    result = attack_head(encoder, images, config)
    found = comparisons(result, images)
    values = to_json(result, found, encoder=encoder, images=images, settings=config)
    write_atomically(folder / "attack.json", json.dumps(values, indent=1, allow_nan=False) + "\n")
    _draw(result, found, encoder, images, folder)
    print(as_table(found))
    print(_best_search(result))
    print(f"results: {folder}/attack.json, reconstructions.png")
    if config.wandb and run is not None:
        name = "attack_best" if encoder.source == str(run.best) else "attack"
        pictures = {f"{name}/reconstructions": folder / "reconstructions.png"}
        log_to_wandb(run, encoder.config, _summary(found, name), pictures)


def _choose(config: AttackConfig) -> "tuple[Encoder, Path, RunFolder | None]":
    """Return the encoder, the folder for the results and the run that it belongs to."""
    from mocosfl.runs.checkpoint import check_head, find_checkpoint, read_encoder
    from mocosfl.runs.folder import RunFolder

    path = Path(config.checkpoint)
    file = find_checkpoint(path, config.which)
    run: RunFolder | None = RunFolder(path if path.is_dir() else path.parent.parent)
    assert run is not None
    default = run.path / "attack_best" if file == run.best else run.attack
    if not run.config.is_file():
        run = None
    if run is None and config.output_dir is None:
        raise ValueError(f"checkpoint={path}: is in no run folder; say where to write, output_dir=")
    encoder = read_encoder(file)
    check_head(encoder.config, f"checkpoint={path}")
    return encoder, Path(config.output_dir or default), run


def _announcement(encoder: "Encoder", images: "AttackImages") -> str:
    victims = "all training images" if images.client is None else f"client {images.client}"
    return (
        f"head: {encoder.source}, {encoder.step:,} training steps\n"
        f"victims: {len(images.victims)} images of {victims}; known to the attacker: "
        f"{len(images.known)} others"
    )


def _best_search(result: "AttackResult") -> str:
    best = result.searches[0]
    return (
        f"search: from the {best.start}, learning rate {best.learning_rate:g}, prior "
        f"{best.prior_weight:g}, the best of {len(result.searches)} on known images; left of the "
        f"smashed data {float(result.relative_error.mean()):.2g} (relative squared error)\n"
        f"decoder {result.seconds['decoder']:.1f} s, search {result.seconds['optimisation']:.1f} s"
    )


def _draw(
    result: "AttackResult",
    found: "dict[str, Comparison]",
    encoder: "Encoder",
    images: "AttackImages",
    folder: Path,
) -> None:
    """Draw some victims above what each attack made of them."""
    import torch

    from mocosfl.pictures.reconstructions import draw_reconstructions
    from mocosfl.privacy.attack.comparison import spreads

    # An even spread: victims are in the order of their numbers, and that may be by class.
    total = len(images.victims)
    shown = torch.linspace(0, total - 1, min(NUM_SHOWN, total)).round().long()
    rows = {"image": images.victim_images[shown]}
    for name in ("decoder", "optimisation"):
        s = spreads(found[name])
        label = f"{name}\nSSIM {s['ssim'].mean:.3f}\nMSE {s['mse'].mean:.4f}"
        rows[label] = result.reconstructions[name][shown]
    shape = "x".join(str(size) for size in result.smashed_shape)
    draw_reconstructions(
        rows,
        folder / "reconstructions.png",
        title=f"{encoder.config.backbone.name}, cut {encoder.config.split.cut_layer}, smashed "
        f"{shape}, {encoder.step:,} steps; means over {len(images.victims)} victims",
    )


def _summary(found: "dict[str, Comparison]", name: str) -> dict[str, float]:
    """Return the means by logged name; infinite ones too, W&B takes them."""
    from mocosfl.privacy.attack.comparison import spreads

    return {
        f"{name}/{attack.replace(' ', '_')}_{quantity}": spread.mean
        for attack, comparison in found.items()
        for quantity, spread in spreads(comparison).items()
    }


if __name__ == "__main__":
    main()
