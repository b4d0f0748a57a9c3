"""What an update does to a mesh, in the mesh's words, before it happens.

`levels` reads (files, state, world), `picture` decodes resources, `compare` makes a `Plan` of two
pictures and the operations. Rendering and rules take the plan alone.
"""
