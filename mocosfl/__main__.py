"""The commands of mocosfl: `python -m mocosfl`."""

from typing import NamedTuple

from mocosfl import __version__


class Command(NamedTuple):
    """One command."""

    call: str
    purpose: str


COMMANDS: dict[str, tuple[Command, ...]] = {
    "train": (
        Command("python train.py", "train an encoder; with -m, sweep over settings"),
        Command("python -m mocosfl.expert", "train a head that can't be inverted (TAResSFL)"),
    ),
    "evaluate": (
        Command("python linear_probe.py", "what frozen features are worth: probes, kNN"),
        Command("python -m mocosfl.attack", "what a head gives away of its images"),
        Command("python -m mocosfl.overhead", "bytes, MACs and memory of a client, untrained"),
        Command("python -m mocosfl.report", "one page about a run or a sweep"),
        Command("python -m mocosfl.dashboard", "panels for a project's runs on Weights & Biases"),
    ),
    "take away": (
        Command("python -m mocosfl.export", "an encoder or a head as a file of its own"),
        Command("python -m mocosfl.embed", "features and neighbours of a folder of pictures"),
    ),
    "real devices": (
        Command("python -m mocosfl.edge.server", "train with clients that are other machines"),
        Command("python -m mocosfl.edge.client", "such a client"),
        Command("python -m mocosfl.edge.certificates", "keys by which they know each other"),
        Command("python -m mocosfl.edge.deal", "a data set dealt to clients' folders"),
    ),
    "this machine": (
        Command("python -m mocosfl.demo", "train on digits and probe, as `make demo` does"),
        Command("python -m mocosfl.check_install", "whether the installed packages fit together"),
    ),
}
"""By what they are for; all take --help, and those of the last group nothing else."""


def listing() -> str:
    """Return all commands as text."""
    width = max(len(command.call) for group in COMMANDS.values() for command in group)
    lines = [f"mocosfl {__version__}: its commands, by what they are for"]
    for purpose, group in COMMANDS.items():
        lines += ["", purpose, *(f"  {call:<{width}}  {what}" for call, what in group)]
    return "\n".join(lines)


if __name__ == "__main__":
    print(listing())
