"""The one model of what each calling proxy does with requests to a service, and of what it should do.

`model` has its words, `callers` says who calls and reads what they have, `judge` holds that against a rule, `others`
finds whose object it is that decides, and `wait` waits until it is as wanted.
"""
