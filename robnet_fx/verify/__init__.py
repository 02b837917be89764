"""Verdicts: which images no field of the box can turn, and the document that says so."""

from robnet_fx.verify.certificate import Certificate, certify
from robnet_fx.verify.verdict import Verdicts, classify, verdicts

__all__ = ["Certificate", "Verdicts", "certify", "classify", "verdicts"]
