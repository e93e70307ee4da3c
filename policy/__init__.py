"""The policy pack: rules on what a stack may declare, for `pulumi preview --policy-pack policy` and for the report."""
