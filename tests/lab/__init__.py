"""The real lab, from nothing to green and down again: `./scripts/lab` in a copy of the checkout, with a stack of its own.

The files are numbered because they tell one story on one environment: making it takes a minute and a half, so each test leaves it as it found it.
"""
