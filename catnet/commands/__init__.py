"""The sub-commands of `catnet`, a module each."""
