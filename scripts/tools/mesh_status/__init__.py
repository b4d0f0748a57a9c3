"""What is in the mesh of a stack, and how it is: read from Pulumi's state, the cluster and the machines; shown as a table, JSON or a drawing.

`collect` and what it calls (`stack`, `cluster`, `machines`) read; `model` and `advice` judge; `table`, `data` and `svg` show. Only the
first three see secrets (kubeconfig, SSH keys), and what they hand on has none.
"""
