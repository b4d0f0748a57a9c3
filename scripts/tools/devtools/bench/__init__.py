"""`./scripts/bench`: what this program costs. `preview` as a stack grows; `lab` in a real mesh, beside Istio's documented manual way."""
