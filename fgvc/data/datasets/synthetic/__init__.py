"""Generator settings -> fine-grained birds that do not exist, drawn, in the layout of CUB-200-2011.

Classes differ only in parts; everything else in a picture is nuisance, drawn independently of it.
    species.py  number of classes, seed -> code words over part attributes
    bird.py     code word -> coloured polygons
    scene.py    polygons, random stream -> picture, box, part locations
    folder.py   settings -> folder
"""

from fgvc.data.datasets.synthetic.folder import VERSION, image_digests, write
from fgvc.data.datasets.synthetic.species import hierarchy

__all__ = ["VERSION", "hierarchy", "image_digests", "write"]
