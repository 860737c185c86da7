"""From rows to documents; nothing here knows a model."""
