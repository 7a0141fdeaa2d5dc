"""Numbers -> the run folder: stamp, checkpoint, predictions, plots, TensorBoard, status."""
