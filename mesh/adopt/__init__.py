"""Takes over what somebody else installed: an Istio by Helm or istioctl, workloads and rules by any other tool."""

from mesh.adopt.find import Candidate, Plan, Refusal, Search, find
from mesh.adopt.take import take

__all__ = ["Candidate", "Plan", "Refusal", "Search", "find", "take"]
