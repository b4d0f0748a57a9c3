"""The lab: prepares one Linux machine so that `pulumi up` of the stack `lab` works, and takes it
all away again.
"""
