"""Features and labels -> multinomial logistic regression over a path of C, with a certified gap.

path: the values of C, the choice and the refit; newton: the solver; problem: the objective in its
own axes; frame: the rows as given and the way back.
"""

from fgvc.learn.logistic.path import (
    Choice,
    Solution,
    Trial,
    choose,
    fit_path,
    refit,
    rotation_units,
)

__all__ = ["Choice", "Solution", "Trial", "choose", "fit_path", "refit", "rotation_units"]
