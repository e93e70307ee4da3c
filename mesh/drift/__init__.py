"""Drift: what is live against what is declared."""

from mesh.drift.find import Applied, Drift, Expected, Pending, Report, applied, find

__all__ = ["Applied", "Drift", "Expected", "Pending", "Report", "applied", "find"]
