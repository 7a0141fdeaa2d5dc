"""head=linear: one affine map; in a probe, multinomial logistic regression."""

from fgvc.config.schema.fields import NoOptions
from fgvc.config.schema.head import HeadSpec

HEAD = HeadSpec(NoOptions, "LinearHead", fit="logistic")
