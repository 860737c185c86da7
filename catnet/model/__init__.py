"""From an episode to probabilities."""
