"""Batch -> tokens -> (part attention) -> logits: one module or package per axis of variation."""
