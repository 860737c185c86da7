"""From scans to episodes."""
