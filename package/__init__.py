"""The components as a Pulumi package, for programs in any of Pulumi's languages.

A component takes a piece of a stack file: the same keys with the same meaning, judged by the same rules.
https://www.pulumi.com/docs/iac/guides/building-extending/components/
"""
