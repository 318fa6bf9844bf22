"""What an exported file says of itself: a key a fact, `mocosfl.<name>`, its value as JSON."""

import json
from collections.abc import Mapping
from typing import Any, get_args, get_origin

PREFIX = "mocosfl."


def to_metadata(facts: Mapping[str, Any]) -> dict[str, str]:
    """Return facts by name as a file's metadata."""
    return {PREFIX + name: json.dumps(value) for name, value in facts.items()}


def from_metadata(metadata: Mapping[str, str], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts in a file's metadata.

    Args:
        metadata: of the file; other keys are left alone.
        kinds: name of each fact -> its type: a plain one, a union of such, or tuple[...].

    Raises:
        KeyError, ValueError, TypeError: a fact is not there, or not as `to_metadata` writes it.
    """
    facts = {}
    for name, kind in kinds.items():
        value = json.loads(metadata[PREFIX + name])
        parts = get_args(kind) or (kind,)
        if get_origin(kind) is tuple:
            if type(value) is not list or (len(value) != len(parts) and ... not in parts):
                raise TypeError(f"{name}={value!r}")
            value = tuple(map(parts[0], value))
        elif type(value) not in parts:
            raise TypeError(f"{name}={value!r}")
        facts[name] = value
    return facts
