"""Drift: what is live against what is declared."""

from mesh.drift.find import Allowed, Applied, Drift, Expected, Pending, Report, applied, find

__all__ = ["Allowed", "Applied", "Drift", "Expected", "Pending", "Report", "applied", "find"]
