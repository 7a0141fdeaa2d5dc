"""Generator settings -> drawings of invented bird species, in the layout of CUB-200-2011.

Classes differ only in their parts; everything else in an image is drawn independently of the class.
    species.py  number of classes, seed -> attributes of the parts per species
    bird.py     attributes -> coloured polygons
    scene.py    polygons, random stream -> image, box, part locations
    folder.py   settings -> folder
"""

from fgvc.data.datasets.synthetic.folder import VERSION, image_digests, write
from fgvc.data.datasets.synthetic.species import hierarchy

__all__ = ["VERSION", "hierarchy", "image_digests", "write"]
