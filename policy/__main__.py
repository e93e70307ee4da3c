"""The pack for Pulumi. https://www.pulumi.com/docs/iac/packages-and-automation/crossguard/

A rule that is mandatory only in production becomes two policies, as a policy has one level: Pulumi does not tell a
pack which stack it is for before it has to name its policies.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from pulumi_policy import (
    EnforcementLevel,
    Policy,
    PolicyPack,
    PolicyResource,
    ReportViolation,
    ResourceValidationArgs,
    ResourceValidationPolicy,
    StackValidationArgs,
    StackValidationPolicy,
)

# Pulumi starts the pack in its own folder.
sys.path.insert(0, str(Path(__file__).parent.parent))

from policy.rules import RULES, Proposed, Rule


def _proposed(resource: ResourceValidationArgs | PolicyResource) -> Proposed:
    return Proposed(resource.urn, resource.resource_type, resource.name, resource.props)


def _policy(rule: Rule, *, mandatory: bool) -> Policy:
    name = rule.name if mandatory else f"{rule.name}-advice"
    level = EnforcementLevel.MANDATORY if mandatory else EnforcementLevel.ADVISORY
    if rule.needs_stack:

        def whole(args: StackValidationArgs, report: ReportViolation) -> None:
            for finding in rule.check([_proposed(resource) for resource in args.resources]):
                if rule.is_mandatory(finding.resource.stack) == mandatory:
                    report(finding.message, finding.resource.urn)

        return StackValidationPolicy(name, rule.description, whole, level)

    def one(args: ResourceValidationArgs, report: ReportViolation) -> None:
        for finding in rule.check([_proposed(args)]):
            if rule.is_mandatory(finding.resource.stack) == mandatory:
                report(finding.message, None)

    return ResourceValidationPolicy(name, rule.description, one, level)


def _policies() -> Iterator[Policy]:
    for rule in RULES:
        yield _policy(rule, mandatory=True)
        if not rule.everywhere:
            yield _policy(rule, mandatory=False)


PolicyPack("istio-governance", list(_policies()))
