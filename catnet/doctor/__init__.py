"""What may keep this installation, its data and its runs from working, each in one line."""
