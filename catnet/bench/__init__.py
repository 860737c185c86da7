"""What the library's speed is: pairs with a plain reference in one run, and how cost grows."""
