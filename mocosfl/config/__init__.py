"""What can be asked for: the schemas, the choices, and the arithmetic on it. No torch."""
