"""Kinds of results that protocols share: a head, a classifier, a measured network, plain facts."""

from pipeline.runs.sections.classifier import ClassifierSection
from pipeline.runs.sections.facts import FactsSection
from pipeline.runs.sections.head import HeadSection
from pipeline.runs.sections.network import NetworkSection

__all__ = ["ClassifierSection", "FactsSection", "HeadSection", "NetworkSection"]
