"""Penstock: triggers."""

from penstock.triggers.errors import PatternError
from penstock.triggers.matcher import Matcher
from penstock.triggers.pattern import Pattern

__all__ = ["Matcher", "Pattern", "PatternError"]
