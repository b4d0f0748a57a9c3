"""Builds from package registries what the machine does not have: programs, images, a container
engine.

Only the commands of the lab and the test runner import it; pyproject.toml lists them
(`[tool.importlinter]`).
"""
