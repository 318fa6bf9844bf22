"""Model inversion: who is attacked, with what, and what came out."""
