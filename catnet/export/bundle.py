"""A MONAI bundle's two files: what the model is, and how `python -m monai.bundle run` calls it.

Specification: MONAI Bundle, https://docs.monai.io/en/stable/mb_specification.html.
"""

from importlib.metadata import version

from catnet.runs import RunFolder

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
    "meta_schema_20240725.json"
)


def inference() -> dict[str, object]:
    """The configuration of inference; every value can be overridden on the command line.

    The work is `catnet predict`'s, so that a bundle gives the same files.
    """
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "dataset_dir": ".",
        "output_dir": "$@bundle_root + '/eval'",
        "device": "$'gpu' if torch.cuda.is_available() else 'cpu'",
        "support_image": "",
        "support_label": "",
        "query": "",
        "organ": [],
        "probability": False,
        "again": False,
        "network_def": {
            "_target_": "catnet.model.networks.load_network",
            "folder": "@bundle_root",
        },
        "inferer": {
            "_target_": "catnet.predict.bundle.BundleInferer",
            "bundle_root": "@bundle_root",
            "support_image": "@support_image",
            "support_label": "@support_label",
            "organ": "@organ",
            "device": "@device",
        },
        "run": ["$@inferer(@query, @output_dir, probability=@probability, again=@again)"],
    }


def metadata(folder: RunFolder, provenance: dict) -> dict[str, object]:
    """What the bundle's specification asks for."""
    card, run = folder.card, folder.run
    height, width = reversed(card.size)
    return {
        "schema": SCHEMA,
        "version": "0.1.0",
        "changelog": {"0.1.0": f"exported from {folder.path.name}"},
        **{
            f"{name}_version": version(package)
            for name, package in (("monai", "monai"), ("pytorch", "torch"), ("numpy", "numpy"))
        },
        "required_packages_version": {"catnet": version("catnet")},
        "name": folder.path.name,
        "task": "few-shot segmentation of abdominal or cardiac scans",
        "description": f"{run.model.name}: segments an organ from a labelled slice of another scan",
        "authors": "see MODEL_CARD.md",
        "copyright": "see MODEL_CARD.md",
        "data_source": card.source,
        "data_type": "nifti, nrrd, mha, dicom",
        "image_classes": f"{card.modality}, one channel",
        "label_classes": "the numbers of the support's label",
        "pred_classes": "the numbers of the support's label, 0 is background",
        "intended_use": "research; not a medical device",
        "references": [card.citation, "Lin et al., MICCAI 2023, arXiv 2303.13867"],
        "catnet_commit": provenance.get("commit", "unknown"),
        "network_data_format": {
            "inputs": {"image": channel(height, width, kind="image", values=[-10, 10])},
            "outputs": {"pred": channel(height, width, kind="probabilities", values=[0, 1])},
        },
    }


def channel(height: int, width: int, *, kind: str, values: list[int]) -> dict[str, object]:
    """One slice in or out of the network."""
    return {
        "type": kind,
        "format": "magnitude" if kind == "image" else "segmentation",
        "num_channels": 1,
        "spatial_shape": [height, width],
        "dtype": "float32",
        "value_range": values,
        "is_patch_data": False,
        "channel_def": {"0": "image" if kind == "image" else "organ"},
    }
