"""Readers of image data sets, one file a layout. `read_datasets` recognises the layout and joins several data sets."""

from trainer.data.readers.datasets import Datasets, read_datasets, require_dataset

__all__ = ["Datasets", "read_datasets", "require_dataset"]
