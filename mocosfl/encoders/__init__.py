"""A trained encoder in other hands: loaded, exported, and used on folders of pictures."""
