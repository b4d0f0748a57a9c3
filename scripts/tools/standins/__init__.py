"""Stand-ins for the Pulumi plugins that no package registry carries: the Python language host and
the `command` and `kubernetes` providers.

They speak the real plugin protocol to the real engine. What they do not implement they refuse by
name. See `provider` for how a provider is written and `install` for how they get where the CLI
looks for them.
"""
