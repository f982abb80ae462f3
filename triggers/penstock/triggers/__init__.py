"""Penstock: triggers."""

from penstock.triggers.errors import PatternError
from penstock.triggers.explaining import Broken, Explanation
from penstock.triggers.matcher import Matcher
from penstock.triggers.pattern import Pattern
from penstock.triggers.simulation import simulate

__all__ = ["Broken", "Explanation", "Matcher", "Pattern", "PatternError", "simulate"]
