"""What an update does to a mesh, in the mesh's words, before it happens.

`levels` reads (files, state, world), `picture` decodes resources, `compare` makes a `Plan` of two
pictures and the operations. Rendering and rules take the plan alone.
"""

NOTHING, FAILED, CHANGES, BROKEN, INTERRUPTED = 0, 1, 2, 3, 130
"""Exit codes. A wrong command line ends with 1, because 2 means that there are changes."""
