"""Plugins of Hydra: it finds them in this namespace, from a checkout and from an installed wheel.

Hydra imports every module here whenever it starts, also for --help. So the modules import only
Hydra at the top; `fgvc.launch` and its libraries are imported when a sweep starts.
"""
