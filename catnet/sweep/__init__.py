"""A question's runs: what is missing is trained and evaluated, here or on a Ray cluster."""
