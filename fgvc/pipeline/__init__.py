"""The steps that tasks share: open an experiment, build a model, extract features, fit a head,
finetune, restore a checkpoint, run inference, locate parts, write the record."""
