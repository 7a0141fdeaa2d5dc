"""One reader per module: the files of a dataset at or below a root -> Index, in their own order.

Each `read` raises UserError if files are missing or malformed, or contradict each other. `partial`
accepts an incomplete copy: classes without an image are left out, and class ids may have gaps.
"""
