"""MocoSFL: collaborative self-supervised learning of an image encoder on many small clients.

`mocosfl.load_encoder(path)` gives a trained encoder: docs/encoder.md.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mocosfl.encoders.image_encoder import ImageEncoder, load_encoder

__version__ = "0.1.0"
__all__ = ["ImageEncoder", "__version__", "load_encoder"]


# Imported when asked for: the package must not wait for torch, which a device may not even have.
# Hidden from type checkers, who would take any name for one of ours.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        if name not in ("ImageEncoder", "load_encoder"):
            raise AttributeError(f"module 'mocosfl' has no attribute {name!r}")
        from mocosfl.encoders import image_encoder as encoder

        return getattr(encoder, name)
