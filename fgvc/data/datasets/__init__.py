"""Files of a dataset -> Index: one module or package per `dataset.reader`."""
