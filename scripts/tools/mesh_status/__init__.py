"""What is in the mesh of a stack, and how it is: read from Pulumi's state, the cluster and the machines; shown as a table, JSON or a drawing.

`read` and what it calls (`read_state`, `read_cluster`, `read_machines`) read; `model`, `advice` and `assess` judge; the `render_` modules show.
Only the first see secrets of the state, and what they hand on has none.
"""
