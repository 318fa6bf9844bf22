"""A run's pool over several processes of one machine."""
