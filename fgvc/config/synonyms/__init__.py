"""Words of timm, torchvision, Lightning and Hugging Face -> what to write here instead.

For a key that does not exist (keys.py) and an option that does not exist (options.py): overrides
that keep the value, or a note that fgvc has no such setting. None where the word is unknown: then
the nearest spelling is suggested.
"""

from fgvc.config.synonyms.advice import Advice, Asked
from fgvc.config.synonyms.keys import NAMES, for_key, unknown_key
from fgvc.config.synonyms.options import for_option

__all__ = ["NAMES", "Advice", "Asked", "for_key", "for_option", "unknown_key"]
