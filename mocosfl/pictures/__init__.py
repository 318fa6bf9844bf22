"""All pictures in one style; imports nothing of ours."""
