"""What a change of the stack means, for people: first in words, then its risk, then the resources, object by object.

Data flows one way: two `State`s → `Change`s → words and refusals, and → `Effect`s → risk; all in one `Report` →
Markdown, text or JSON.
"""
