"""The door by which a MONAI bundle's configuration calls a prediction."""

from collections.abc import Sequence
from pathlib import Path

from catnet.errors import UserError
from catnet.predict.plan import plan_queries
from catnet.predict.run import predict
from catnet.predict.session import Request

Paths = str | Sequence[str]


class BundleInferer:
    """Segments queries with the bundle's network; paths are one text, or a list of several."""

    def __init__(
        self,
        bundle_root: str,
        *,
        support_image: Paths,
        support_label: Paths,
        organ: int | Sequence[int],
        device: str,
    ) -> None:
        images, labels = as_paths(support_image), as_paths(support_label)
        if not images or len(images) != len(labels):
            raise UserError(
                "a bundle needs a label for every support image; give --support_image and "
                "--support_label"
            )
        numbers = [organ] if isinstance(organ, int) else organ
        self.request = Request(
            bundle_root,
            tuple(zip(images, labels, strict=True)),
            organs=tuple((int(number), None) for number in numbers),
            accelerator=device,
        )

    def __call__(
        self, query: Paths, output_dir: str, *, probability: bool = False, again: bool = False
    ) -> list[dict]:
        """Write the masks of every query to a folder; gives the records of its summary."""
        queries = as_paths(query)
        if not queries:
            raise UserError("a bundle needs a scan to segment; give --query")
        wanted = plan_queries(
            queries,
            Path(output_dir),
            supports=[path for pair in self.request.supports for path in pair],
            probability=probability,
            dicom_seg=False,
            again=again,
        )
        outcomes = predict(
            self.request, wanted, jobs=1, keep_going=False, watch=lambda name, done, total: None
        )
        return [outcome.record for outcome in outcomes]


def as_paths(given: Paths) -> list[Path]:
    """One path or several; none where the text is empty."""
    texts = [given] if isinstance(given, str) else given
    return [Path(text) for text in texts if text]
