"""Rules for `taressfl`, the privacy module."""

from collections.abc import Iterable, Iterator

from mocosfl.config.choices import LEARNING, ClientState, TaressflMode
from mocosfl.config.derived import is_frozen
from mocosfl.config.methods import METHODS
from mocosfl.config.schema import Config
from mocosfl.privacy.decoders import parse_decoder
from mocosfl.rules.expert import expert_rules
from mocosfl.rules.problems import not_from_0_to_1, not_positive, not_up_to_1, refuse, too_small

# Of these the clients have a head that contrasts: it can be inverted, and learn not to be.
CONTRASTING = [name for name, m in METHODS.items() if not m.whole_network and not m.supervised]

_RETRIES = ("max_collapses", "collapse_lr_factor")
_PENALTY = ("decoder", "decoder_lr", "alpha", "target_ssim", "collapse_alpha_factor")
READ = {  # what each mode reads of the group, beside the mode
    TaressflMode.off: ("mode", "expert", "auxiliary", *_RETRIES),  # the two have rules of their own
    TaressflMode.on: ("mode", "expert", "auxiliary", *_RETRIES),
    TaressflMode.online: ("mode", "expert", "auxiliary", *_RETRIES, *_PENALTY),
    TaressflMode.expert: ("mode", "expert", "auxiliary", *_RETRIES, *_PENALTY, "target_fraction",
                          "target_rows"),
}  # fmt: skip


def taressfl_rules(config: Config) -> Iterator[str]:
    """Yield a line for each setting that the privacy module has no place for."""
    yield from _numbers(config)
    t, mode = config.taressfl, config.taressfl.mode
    if mode is not TaressflMode.expert and t.auxiliary is not None:
        yield (
            f"taressfl.auxiliary={t.auxiliary.name}: taressfl={mode.name} does not read it; it is "
            "for python -m mocosfl.expert"
        )
    if t.max_collapses and mode not in LEARNING and t.collapse_lr_factor == 1:
        yield (
            f"taressfl.max_collapses={t.max_collapses}: with taressfl={mode.name} another try "
            "would be the same; set taressfl.collapse_lr_factor below 1, or it to 0"
        )
    if mode in (TaressflMode.off, TaressflMode.expert) and t.expert is not None:
        yield f"taressfl.expert={t.expert}: taressfl={mode.name} does not read it; use taressfl=on"
    if mode is TaressflMode.off:
        return
    if config.method.name not in CONTRASTING:
        yield (
            f"taressfl.mode={mode.name}: method={config.method.name} has no place for it; choose "
            f"one of {', '.join(CONTRASTING)}, or taressfl=off"
        )
    if mode is TaressflMode.on:
        yield from _frozen(config)
    if mode in LEARNING:
        yield from _learning(config)
    if mode is TaressflMode.expert:
        yield from expert_rules(config)


def check_overrides(mode: TaressflMode, overrides: Iterable[str]) -> None:
    """Refuse `taressfl.` overrides that the mode does not read.

    Said of what the user typed and not of values, since a configuration has all keys.

    Args:
        mode: of the run.
        overrides: of the command line, "key=value".

    Raises:
        ValueError: names each of them.
    """
    refuse(_unread(mode, overrides))


def _unread(mode: TaressflMode, overrides: Iterable[str]) -> Iterator[str]:
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        name = key.removeprefix("taressfl.")
        if name != key and name.split(".")[0] not in READ[mode]:
            yield (
                f"{override}: taressfl={mode.name} does not read it; choose another taressfl=, or "
                "leave it out"
            )


def decoder_rules(key: str, decoder: str) -> Iterator[str]:
    """Yield a line where a decoder's name can't be read."""
    try:
        parse_decoder(decoder)
    except ValueError as error:
        yield f"{key}={error}"


def _numbers(config: Config) -> Iterator[str]:
    t = config.taressfl
    yield from not_from_0_to_1(
        [
            ("taressfl.target_ssim", t.target_ssim),
            ("taressfl.target_fraction", t.target_fraction),
        ]
    )
    yield from not_up_to_1(
        [
            ("taressfl.collapse_alpha_factor", t.collapse_alpha_factor),
            ("taressfl.collapse_lr_factor", t.collapse_lr_factor),
        ]
    )
    yield from too_small(
        [
            ("taressfl.alpha", t.alpha, 0),
            ("taressfl.max_collapses", t.max_collapses, 0),
        ]
    )
    yield from not_positive([("taressfl.decoder_lr", t.decoder_lr)])
    yield from decoder_rules("taressfl.decoder", t.decoder)


def _frozen(config: Config) -> Iterator[str]:
    if config.taressfl.expert is None:
        yield (
            "taressfl.expert=null: taressfl=on starts from an expert; name its run folder or "
            "checkpoint (python -m mocosfl.expert trains one)"
        )
    if not is_frozen(config):
        yield (
            f"optimizer.client_lr={config.optimizer.client_lr}: with taressfl=on the heads stay "
            "frozen; set it to 0, or use taressfl=online"
        )


def _learning(config: Config) -> Iterator[str]:
    mode, clients = config.taressfl.mode.name, config.clients
    if is_frozen(config):
        yield (
            f"optimizer.client_lr=0: with taressfl={mode} the heads learn to evade their attackers;"
            " set it above 0, or use taressfl=on"
        )
    if config.saving.enabled:
        yield (
            f"saving.enabled=true: with taressfl={mode} a round without traffic would leave the "
            "heads and their attackers behind; use saving=off"
        )
    if clients.client_state is ClientState.stateless and clients.participation < 1:
        yield (
            f"clients.client_state=stateless: with taressfl={mode} a client that enters the pool "
            "would meet an attacker that has learnt nothing; use client_state=bank"
        )
    if config.taressfl.max_collapses and not config.callbacks.collapse_window_steps:
        yield (
            f"callbacks.collapse_window_steps=0: taressfl.max_collapses="
            f"{config.taressfl.max_collapses} goes back when the alarm rings; set it above 0, or "
            "taressfl.max_collapses=0"
        )
