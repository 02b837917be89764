"""Verdicts: which images no field of the box can turn, the document that says so, and the climb to fields that do."""

from robnet_fx.verify.ascent import climb, starting_points
from robnet_fx.verify.certificate import Certificate, certify
from robnet_fx.verify.verdict import Verdicts, classify, verdicts

__all__ = ["Certificate", "Verdicts", "certify", "classify", "climb", "starting_points", "verdicts"]
