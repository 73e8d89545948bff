"""Limits per case, each with the evidence it rests on: one JSON file a cohort, a schema and a strict loader."""

from thresholds.bounds import Bound
from thresholds.evidence import STRUCTURE, Evidence
from thresholds.floor import Spread
from thresholds.loader import Thresholds, load, write
from thresholds.schema import MIN_POWER, SCHEMA, Cohort, Entry
from thresholds.waivers import Waiver

__all__ = [
    "MIN_POWER",
    "SCHEMA",
    "STRUCTURE",
    "Bound",
    "Cohort",
    "Entry",
    "Evidence",
    "Spread",
    "Thresholds",
    "Waiver",
    "load",
    "write",
]
