"""Can the head be inverted? `python -m mocosfl.attack checkpoint=<run folder>`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from mocosfl.config.attack import AttackConfig
from mocosfl.config.hydra_setup import hydra_command
from mocosfl.runs.evaluation_folders import AttackFolder
from mocosfl.system.errors import user_errors
from mocosfl.system.files import check_writable, replaced, write_atomically
from mocosfl.system.logs import setup_logging

if TYPE_CHECKING:
    from mocosfl.privacy.attack.comparison import Comparison
    from mocosfl.privacy.attack.images import AttackImages
    from mocosfl.privacy.attack.run import AttackResult
    from mocosfl.runs.checkpoint import Encoder

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
    from mocosfl.privacy.attack.run import as_table, attack_head, attack_record, comparisons
    from mocosfl.rules.attack import validate_attack
    from mocosfl.rules.machine import check_gpu
    from mocosfl.runs.checkpoint import check_has_head, read_encoder
    from mocosfl.runs.chosen_checkpoint import choose
    from mocosfl.tracking.loggers import log_to_wandb

    validate_attack(config)
    check_gpu(config.accelerator)
    chosen = choose(config.checkpoint, config.which, name="attack", output_dir=config.output_dir)
    encoder, folder, run = read_encoder(chosen.file), chosen.output, chosen.run
    check_has_head(encoder.config, f"checkpoint={Path(config.checkpoint)}")
    check_writable(folder)  # before minutes of work
    images = choose_images(config, encoder.config, run)
    print(_announcement(encoder, images), flush=True)
    result = attack_head(encoder, images, config)
    found = comparisons(result, images)
    values = attack_record(result, found, encoder=encoder, images=images, settings=config)
    files = AttackFolder(folder)
    write_atomically(files.results, json.dumps(values, indent=1, allow_nan=False) + "\n")
    _draw(result, found, encoder, images, files.reconstructions)
    print(as_table(found))
    print(_best_search(result))
    print(f"results: {files.results}, {files.reconstructions.name}")
    if config.wandb and run is not None:
        pictures = {f"{chosen.name}/reconstructions": files.reconstructions}
        log_to_wandb(run, encoder.config, _summary(found, chosen.name), pictures)


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
    path: Path,
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
    with replaced(path) as picture:
        draw_reconstructions(
            rows,
            picture,
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
