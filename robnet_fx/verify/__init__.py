"""Verdicts: which images no field of the box can turn, at one strength or several and up to which, the document that
says so, and the climb to fields that do."""

from robnet_fx.verify.ascent import climb, starting_points
from robnet_fx.verify.bisection import Largest, largest
from robnet_fx.verify.certificate import Certificate, Unfinished, certify
from robnet_fx.verify.curves import curve
from robnet_fx.verify.decision import Decision, decide
from robnet_fx.verify.question import Question, classification
from robnet_fx.verify.search import Limits
from robnet_fx.verify.verdict import Verdicts, classify, verdicts

__all__ = [
    "Certificate",
    "Decision",
    "Largest",
    "Limits",
    "Question",
    "Unfinished",
    "Verdicts",
    "certify",
    "classification",
    "classify",
    "climb",
    "curve",
    "decide",
    "largest",
    "starting_points",
    "verdicts",
]
