"""Limits per case, each with the evidence it rests on: one JSON file a cohort, a schema and a strict loader."""

from thresholds.bounds import Bound
from thresholds.loader import Thresholds, load, write
from thresholds.schema import SCHEMA, Cohort, Entry, Evidence

__all__ = ["SCHEMA", "Bound", "Cohort", "Entry", "Evidence", "Thresholds", "load", "write"]
