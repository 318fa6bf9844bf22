"""MocoSFL: collaborative self-supervised learning of an image encoder on many small clients."""

__version__ = "0.1.0"
