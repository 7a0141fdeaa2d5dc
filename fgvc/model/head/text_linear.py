"""head=text_linear: an affine map of unit features, regularised towards the text features of names.

The fit starts from weights scale * t_c and no bias, which is the classifier of head=text.
"""

from fgvc.config.schema.fields import NoOptions
from fgvc.config.schema.head import HeadSpec

HEAD = HeadSpec(NoOptions, "TextLinearHead", fit="logistic", reads_text=True)
