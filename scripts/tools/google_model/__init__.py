"""A model of Google Cloud: what it does with the resources of a stack, without an account.

It reads the graph that a program declares. It refuses what it does not model, so that no check
passes because something was overlooked.
"""
