"""What the tests alone need of the model of Google Cloud (`tools.google_model`).

It is what Google Cloud accepts as names, which packets it lets through, and what it refuses to
delete or to replace.
"""
