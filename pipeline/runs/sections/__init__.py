"""Kinds of results that protocols share: a head, a measured network, plain facts."""

from pipeline.runs.sections.facts import FactsSection
from pipeline.runs.sections.head import HeadSection
from pipeline.runs.sections.network import NetworkSection

__all__ = ["FactsSection", "HeadSection", "NetworkSection"]
