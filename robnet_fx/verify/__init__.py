"""Verdicts: which images no field of the box can turn, the document that says so, and the climb to fields that do."""

from robnet_fx.verify.ascent import climb, starting_points
from robnet_fx.verify.certificate import Certificate, Unfinished, certify
from robnet_fx.verify.decision import Decision, decide
from robnet_fx.verify.question import Question, classification
from robnet_fx.verify.search import Limits
from robnet_fx.verify.verdict import Verdicts, classify, verdicts

__all__ = [
    "Certificate",
    "Decision",
    "Limits",
    "Question",
    "Unfinished",
    "Verdicts",
    "certify",
    "classification",
    "classify",
    "climb",
    "decide",
    "starting_points",
    "verdicts",
]
