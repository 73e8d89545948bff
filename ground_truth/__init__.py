"""Stored references: content-addressed artifacts, and manifests that say what they were made from."""

from ground_truth.manifest import KINDS, SCHEMA, Artifact, Manifest
from ground_truth.store import Store

__all__ = ["KINDS", "SCHEMA", "Artifact", "Manifest", "Store"]
