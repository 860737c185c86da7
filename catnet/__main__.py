"""`python -m catnet` is the `catnet` command."""

from catnet.cli import main

if __name__ == "__main__":
    main()
