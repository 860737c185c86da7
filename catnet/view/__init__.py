"""A scan with its masks as one page that opens from disk: three planes, layers, no network."""
