"""The methods that `method.name` can name, and what each of them is."""

from typing import NamedTuple


class Method(NamedTuple):
    """What a method's name says of it."""

    whole_network: bool = False  # the whole network on each client, no cut
    supervised: bool = False  # cross-entropy with the labels in place of the contrastive loss
    aligns_momentum: bool = False  # a sync averages the momentum heads too
    central: bool = False  # one machine holds all images


METHODS = {
    "mocosfl": Method(),
    "monacosfl": Method(aligns_momentum=True),
    "fl_moco": Method(whole_network=True),
    "central_moco": Method(whole_network=True, central=True),
    "sfl_supervised": Method(supervised=True),
    "central_supervised": Method(whole_network=True, supervised=True, central=True),
}


def method_of(name: object) -> Method:
    """Return what a name says of a method; of one that is not known, nothing out of the ordinary.

    Args:
        name: as a run has recorded it, which a report reads without asking whether it is valid.
    """
    return METHODS.get(str(name), Method())
