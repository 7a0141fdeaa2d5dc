"""head= axis: pooled features -> logits. A module per head, which only describes it (HeadSpec).

Importing this package and its modules is cheap, because every command reads their options. The
torch modules are in fgvc/model/head_layers.py; fgvc/model/build_head.py makes a head by its name.
"""
