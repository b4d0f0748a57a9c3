"""The real labs, from nothing to green and down again: `./scripts/lab` in a copy of the checkout. See README.md."""
