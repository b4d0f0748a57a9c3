"""The real lab, from nothing to green and down again: `./scripts/lab` in a copy of the checkout, with a stack of its own.

The files are numbered because they share one environment, which takes a minute to make: tests leave it as they found it, but for those
of `test_5_changes`, which build on each other, and `test_6_down`, which ends it.
"""
