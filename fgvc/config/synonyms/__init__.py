"""Words of timm, torchvision, Lightning and Hugging Face -> what to write here instead.

For an unknown key (keys.py) or option (options.py): overrides with the same value, or a note that
fgvc has no such setting. None for an unknown word: then the nearest spelling is suggested.
"""

from fgvc.config.synonyms.advice import Advice, CommandContext
from fgvc.config.synonyms.keys import NAMES, for_key, for_word, unknown_key
from fgvc.config.synonyms.options import for_option

__all__ = ["NAMES", "Advice", "CommandContext", "for_key", "for_option", "for_word", "unknown_key"]
