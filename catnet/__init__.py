"""CAT-Net, and a bench for few-shot medical image segmentation."""
