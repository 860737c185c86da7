"""Augmentation, on the device, the whole batch at once."""
