"""Features and labels -> multinomial logistic regression over a path of C, with a certified gap.

path: every value of C, and the selection. search: the same selection from fewer values. solver: the
solution for one C, and the refit. newton: the iterations. problem: the objective in principal axes,
and the conversion of solutions to the input features and classes.
"""

from fgvc.learn.logistic.path import Choice, Trial, choose, fit_path
from fgvc.learn.logistic.search import fit_bracket
from fgvc.learn.logistic.solver import Solution, Solver, refit

__all__ = ["Choice", "Solution", "Solver", "Trial", "choose", "fit_bracket", "fit_path", "refit"]
