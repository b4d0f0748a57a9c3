"""What is in the mesh of a stack, and its health, as a table, JSON or a drawing.

`read` and what it calls (`read_state`, `read_cluster`, `read_machines`) read Pulumi's state, the
cluster and the machines. `model`, `advice` and `assess` rate them. The `render_` modules show them.
Only the first group reads secrets of the state. What it returns has none.
"""
