"""What a change of the stack means, for people: first in words, then its risk, then the resources, object by object.

Data flows one way: two `State`s → `Change`s → words, risk, refusals → one `Report` → Markdown, text or JSON.
"""
