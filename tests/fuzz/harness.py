"""One target under atheris: `python harness.py TARGET CORPUS_FOLDER -max_total_time=10 ...`.

Coverage of the project's own code and of nibabel guides the search. Any exception but `UserError`,
10 seconds without an answer, or more than 2 GB of memory end it with a file that shows the fault.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["catnet", "nibabel", "yaml"]):
    from targets import TARGETS, attempt


def main():
    """Write the seeds, then search."""
    name, corpus = sys.argv[1], Path(sys.argv[2])
    reader, file, seeds = TARGETS[name]
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    folder = Path(tempfile.mkdtemp())

    def one(content):
        attempt(reader, folder / file, content)

    atheris.Setup([sys.argv[0], str(corpus), *sys.argv[3:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
