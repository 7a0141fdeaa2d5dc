"""Features and labels -> multinomial logistic regression over a path of C, with a certified gap.

path: the values of C, selection and refit. newton: the solver. problem: the objective in principal
axes, and the conversion of solutions to the input features and classes.
"""

from fgvc.learn.logistic.path import Choice, Solution, Trial, choose, fit_path, refit

__all__ = ["Choice", "Solution", "Trial", "choose", "fit_path", "refit"]
