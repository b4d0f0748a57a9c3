"""The first live run on Google Cloud: prerequisites, the rows of docs/first-live-run.yaml, and down."""
